// Keys of a page: {key: run}. Never while somebody types, and never with Ctrl, Alt or Meta, unless named "ctrl+z".

/** Whether the person is writing into something. */
export function typing(target) {
  return target.closest?.("input:not([type=range], [type=checkbox], [type=radio]), textarea, select, [contenteditable]");
}

/** Listen for keys; a name is the key in lower case, with "ctrl+" or "shift+" before it. -> stops listening. */
export function keys(bindings) {
  const heard = event => {
    if (event.defaultPrevented || event.altKey || typing(event.target)) return;
    if (document.querySelector("dialog[open]") && event.key !== "Escape") return;
    const ctrl = event.ctrlKey || event.metaKey ? "ctrl+" : "";
    const plain = event.key.toLowerCase();
    const run = bindings[`${ctrl}${event.shiftKey ? "shift+" : ""}${plain}`]
      // A character that needs Shift on this keyboard, like ? or +, is that character.
      ?? (event.key.length === 1 && !/[a-z]/i.test(event.key) ? bindings[ctrl + plain] : undefined);
    if (!run) return;
    // Space and Enter on a button or link mean that button or link.
    if (/^( |enter)$/.test(plain) && event.target.closest?.("button, a, summary, [role=button]")) return;
    event.preventDefault();
    run(event);
  };
  document.addEventListener("keydown", heard);
  return () => document.removeEventListener("keydown", heard);
}
