// The overview stays live: the service sends the lines as HTML whenever they have changed.
import { t } from "./strings.js";
import { localTimes } from "./time.js";

const lines = document.getElementById("lines");
const live = document.getElementById("live");
const source = new EventSource("/overview/events");

function say(key, kind) {
  live.textContent = t(`overview.${key}`);
  live.className = `badge ${kind}`;
}

source.addEventListener("open", () => say("live", "pass"));
source.addEventListener("error", () => {
  if (source.readyState === EventSource.CLOSED) say("stopped", "error");
});
source.addEventListener("lines", event => {
  say("live", "pass");
  // Whoever stands on a link keeps it under the focus.
  const focused = lines.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  lines.innerHTML = event.data; // our own template, everything in it escaped
  localTimes(lines);
  if (focused) [...lines.querySelectorAll("a")].find(link => link.getAttribute("href") === focused)?.focus();
});
addEventListener("pagehide", () => source.close());
