// Short messages at the edge of the page, read out by screen readers; they never take the focus.
import { t } from "./strings.js";

const SHOWN_MS = 7000;

/** Show a message; kind: "", "good" or "bad". A bad one stays until it is closed. -> closes it. */
export function notice(text, { kind = "", link = null } = {}) {
  const box = document.createElement("div");
  box.className = `notice ${kind}`;
  const words = document.createElement("span");
  words.textContent = text;
  box.append(words);
  const close = () => box.remove();
  if (link) {
    const anchor = document.createElement("a");
    [anchor.href, anchor.textContent] = [link.href, link.text];
    box.append(anchor);
  }
  box.append(closer(close));
  document.getElementById("notices").append(box);
  if (kind !== "bad") setTimeout(close, SHOWN_MS);
  return close;
}

function closer(close) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = "×";
  made.ariaLabel = t("script.close");
  made.addEventListener("click", close);
  return made;
}

/** Say what went wrong with a call. */
export function complain(error) {
  const status = error.status ?? -1;
  if (status === 0) return notice(t("script.offline"), { kind: "bad" });
  if (status === 401) {
    const next = encodeURIComponent(location.pathname + location.search);
    const link = { href: `/signin?next=${next}`, text: t("script.sign_in") };
    return notice(t("script.signed_out"), { kind: "bad", link });
  }
  return notice(error.message || String(error), { kind: "bad" });
}
