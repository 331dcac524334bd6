// The strip of inspections whose verdict would be another one.
import { number, t } from "./strings.js";

const strip = document.getElementById("strip");
const blank = document.getElementById("flip");

/** Show a page of flips; `more` is asked for the next one, if there are pages. */
export function showFlips(flips, more = null) {
  strip.replaceChildren(...flips.items.map(card));
  follow(flips, more);
  document.getElementById("strip-empty").hidden = flips.total > 0;
}

function follow(flips, more) {
  const shown = strip.querySelectorAll(".card").length;
  document.getElementById("strip-text").textContent =
    shown < flips.total ? t("flips.text", { shown: number(shown, 0), count: number(flips.total, 0) }) : "";
  if (!flips.next) return;
  const item = document.createElement("li");
  item.className = "more";
  const button = document.createElement("button");
  [button.type, button.className, button.textContent] = ["button", "button", t("flips.more")];
  button.addEventListener("click", async () => {
    button.disabled = true;
    const next = await more(flips.next);
    if (!next || !item.isConnected) return;
    item.remove();
    strip.append(...next.items.map(card));
    strip.querySelectorAll(".card")[shown]?.focus();
    follow(next, more);
  });
  item.append(button);
  strip.append(item);
}

function card(flip) {
  const item = blank.content.cloneNode(true);
  const find = name => item.querySelector(name);
  const address = `/inspections/${flip.id}`;
  find("a").href = address;
  find("a").classList.add(flip.after.toLowerCase());
  find("img").src = `/v1${address}/image?size=320`;
  for (const side of ["before", "after"]) {
    find(`.${side}`).textContent = flip[side];
    find(`.${side}`).classList.add(flip[side].toLowerCase());
  }
  find(".score").textContent = number(flip.score);
  find(".state").textContent = flip.review_state === "none" ? "" : t(`flips.said_${flip.review_state}`);
  return item;
}
