// A model's page: one key goes back to the model before, one takes that back.
import { keys } from "./keys.js";

const back = [...document.querySelectorAll('[data-key="B"]')];
const undo = document.getElementById("undo-button");
const help = document.getElementById("help");
let sent = false;

/** Of one recipe at once; of several, that whose button has the focus. */
function rollBack(event) {
  if (event.repeat) return; // held down, it is still one press
  const button = back.length === 1 ? back[0] : back.find(each => each === document.activeElement);
  if (!button) return back[0]?.focus();
  if (sent) return;
  sent = true; // twice quickly goes back once
  const { why } = button.form.elements;
  if (!why.value.trim()) why.value = button.dataset.why;
  button.form.requestSubmit(button);
}

function takeBack(event) {
  if (!undo || sent || event.repeat) return;
  sent = true;
  undo.form.requestSubmit(undo);
}

document.getElementById("keys").addEventListener("click", () => help.showModal());
addEventListener("pageshow", () => { sent = false; }); // one that the browser kept, too
keys({ b: rollBack, u: takeBack, "?": () => help.showModal() });
