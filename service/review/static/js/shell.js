// What every page does: local times, the theme, and a menu that closes.
import { themeButtons } from "./theme.js";
import { localTimes } from "./time.js";

localTimes();
themeButtons();
document.querySelector(".top nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" });

const menu = document.querySelector("details.menu");
document.addEventListener("click", event => {
  if (!menu.contains(event.target)) menu.open = false;
});
document.addEventListener("keydown", event => {
  if (event.key === "Escape" && menu.open) {
    menu.open = false;
    menu.querySelector("summary").focus();
  }
});
