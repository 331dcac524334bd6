// Limits for target rates: each source that can say something, with a button that puts the limits there.
import { call } from "./api.js";
import { complain } from "./notice.js";
import { number, t } from "./strings.js";

export function suggestions({ address, sample, place }) {
  const form = document.getElementById("ask");
  const list = document.getElementById("suggestions");
  const blank = document.getElementById("suggestion");
  const rate = name => form.elements[name].valueAsNumber / 100;
  const [reject, review] = ["reject_rate", "review_rate"].map(name => form.elements[name]);
  const check = () => review.setCustomValidity(review.valueAsNumber < reject.valueAsNumber ? t("thresholds.ask_order") : "");
  for (const field of [reject, review]) field.addEventListener("input", check);

  function item(found) {
    const made = blank.content.cloneNode(true);
    const [name, basis, text, button] = ["b", ".quiet", ".limits-text", "button"].map(each => made.querySelector(each));
    name.textContent = t(`thresholds.from_${found.source}`);
    basis.textContent = t(`thresholds.from_${found.source}_text`, { count: number(found.sample, 0) });
    text.textContent = ["review", "reject"].map(limit => withRange(found, limit)).join("  ·  ");
    button.ariaLabel = `${t("thresholds.use")}: ${name.textContent}`;
    button.addEventListener("click", () => place({ review: rounded(found.review), reject: rounded(found.reject) }));
    return made;
  }

  form.addEventListener("submit", async event => {
    event.preventDefault();
    const button = form.querySelector("button");
    button.disabled = true;
    list.ariaBusy = "true";
    try {
      const sent = { reject_rate: rate("reject_rate"), review_rate: rate("review_rate"), limit: sample };
      const { suggestions: found } = await call("POST", address("/suggest"), sent);
      list.replaceChildren(...found.map(item));
    } catch (error) {
      complain(error);
    } finally {
      button.disabled = false;
      list.ariaBusy = "false";
    }
  });
}

const rounded = value => Math.round(100 * value) / 100;

function withRange(found, limit) {
  const range = found[`${limit}_interval`];
  const value = `${t(`thresholds.${limit}`)} ${number(found[limit])}`;
  return range ? `${value} (${number(range[0])} – ${number(range[1])})` : value;
}
