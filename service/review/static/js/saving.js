// A change that is saved with a reason; what somebody else saved meanwhile is shown, and what was typed stays.
import { complain, notice } from "./notice.js";
import { t } from "./strings.js";

/**
 * The form #save of a page whose strings are under `name`, with the version in force.
 * send(why, basedOn, action): the call; theirs(): {version, text} of what is in force now;
 * forget: parts of the address that say where things were put. -> {possible(whether, text), sending()}
 */
export function saving({ name, version, send, theirs, forget }) {
  const form = document.getElementById("save");
  const conflict = document.getElementById("conflict");
  const why = form.elements.why;
  const key = `inlier-${name}-saved`;
  let basedOn = version;
  let newer, action;
  let busy = false;

  const saved = sessionStorage.getItem(key);
  sessionStorage.removeItem(key);
  if (saved) notice(t(`${name}.saved`, { number: saved }), { kind: "good" });

  function afresh() {
    busy = true;
    const next = new URL(location.href);
    for (const part of forget) next.searchParams.delete(part);
    location.replace(next);
  }

  async function save() {
    if (busy) return;
    if (!why.value.trim()) return why.reportValidity();
    busy = true;
    try {
      const made = await send(why.value.trim(), basedOn, action);
      sessionStorage.setItem(key, made.version);
      afresh();
    } catch (error) {
      busy = false;
      if (error.status === 409) await meet().catch(complain);
      else complain(error);
    }
  }

  async function meet() {
    newer = await theirs();
    conflict.querySelector("p").textContent = newer.text;
    conflict.hidden = false;
    conflict.querySelector("button").focus();
  }

  form.addEventListener("submit", event => {
    event.preventDefault();
    action = event.submitter?.value;
    save();
  });
  form.querySelector('[data-do="insist"]').addEventListener("click", () => {
    basedOn = newer.version;
    conflict.hidden = true;
    save();
  });
  form.querySelector('[data-do="theirs"]').addEventListener("click", afresh);
  return {
    possible(whether, text) {
      form.querySelector(".primary").disabled = !whether;
      document.getElementById("save-what").textContent = text;
    },
    sending: () => busy,
  };
}
