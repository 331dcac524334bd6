// The administration: copies a secret, and closes other confirmations when one opens.
import { notice } from "./notice.js";
import { t } from "./strings.js";

for (const button of document.querySelectorAll("[data-copy]")) {
  const field = document.getElementById(button.dataset.copy);
  field.addEventListener("focus", () => field.select());
  button.addEventListener("click", async () => {
    field.select();
    try {
      await navigator.clipboard.writeText(field.value);
      notice(t("script.copied"), { kind: "good" });
    } catch { // over plain http there is no clipboard: it is selected, so that Ctrl+C takes it
      notice(t("script.selected"));
    }
  });
}

const confirmations = [...document.querySelectorAll("details.confirm")];
for (const one of confirmations) {
  one.addEventListener("toggle", () => {
    if (one.open) for (const other of confirmations) if (other !== one) other.open = false;
  });
}
