// The page of an inspection: keys and buttons, decisions, the next inspection in place of this one.
import { Ahead } from "./ahead.js";
import { call } from "./api.js";
import { Heat } from "./heat.js";
import { keys } from "./keys.js";
import { complain, notice } from "./notice.js";
import { Outbox } from "./outbox.js";
import { number, t } from "./strings.js";
import { localTimes } from "./time.js";
import { Trail } from "./trail.js";
import { Viewer } from "./viewer.js";

const CLAIM_AGAIN_MS = 120_000;
const me = document.querySelector(".menu .name").textContent;
const ahead = new Ahead();
const decided = []; // for undo: {id, serial, decision, revision}
let desk = document.getElementById("desk");
let viewer, heat;
const trail = new Trail(desk.dataset.id);
const held = new Set(); // claimed by this page
let moving = Promise.resolve();

const outbox = new Outbox(me, {
  changed: showUnsent,
  lost: () => notice(t("desk.kept"), { kind: "bad" }),
  arrived: () => notice(t("desk.sent_again"), { kind: "good" }),
  refused(entry, problem, reviews) {
    const link = { href: `/inspections/${entry.id}`, text: t("desk.look_again") };
    const last = reviews.at(-1);
    if (!last) return notice(problem.message, { kind: "bad", link });
    const said = { serial: entry.serial, who: last.who, decision: t(`desk.${last.decision}`) };
    notice(t("desk.conflict", said), { kind: "bad", link });
  },
});

const field = name => desk.querySelector(`[name="${name}"]`);
const serial = () => desk.querySelector("h1 span:last-child").textContent;

/** Make what is shown work: pictures, heatmap, buttons. */
function equip(view = null) {
  heat = new Heat(desk);
  viewer?.close();
  viewer = new Viewer(desk, {
    shown: zoom => { document.getElementById("zoom").textContent = `${Math.round(100 * zoom)} %`; },
    pointed: at => void read(at),
  });
  if (view) viewer.restore(view);
  for (const button of desk.querySelectorAll("[data-do]")) {
    button.addEventListener("click", () => actions[button.dataset.do]?.());
  }
  desk.querySelector("#decide").addEventListener("submit", event => {
    event.preventDefault();
    decide(event.submitter?.value ?? "unsure");
  });
  localTimes(desk);
  showPlace();
}

async function read(at) {
  const output = desk.querySelector("#value");
  if (!output) return;
  const shown = at && await heat.value(at.x, at.y).catch(() => null);
  const values = at && { x: Math.floor(at.x), y: Math.floor(at.y), value: number(shown ?? 0) };
  output.textContent = shown === null || !at ? "" : t("desk.value", values);
}

function showPlace() {
  const count = trail.queue && trail.open !== null ? Math.max(trail.ids.length, trail.at + trail.open) : trail.ids.length;
  document.getElementById("place").textContent = t("desk.place", { number: trail.at + 1, count });
  for (const [name, step] of [["next", 1], ["previous", -1]]) {
    desk.querySelector(`[data-do="${name}"]`).disabled = !trail.peek(step);
  }
  desk.querySelector('[data-do="undo"]').disabled = !decided.length;
  showUnsent(outbox.waiting.length);
}

function showUnsent(count) {
  const badge = document.getElementById("unsent");
  badge.hidden = !count;
  badge.textContent = t("desk.unsent", { count });
}

/** Put an inspection in place of the one that is shown. */
async function show(id) {
  const address = trail.address(id);
  const next = await ahead.get(address);
  ahead.forget(address); // shown anew it is asked for anew
  const view = viewer.view;
  desk.replaceWith(next.desk);
  desk = next.desk;
  document.title = next.title;
  history.replaceState(null, "", address);
  equip(view);
  performance.mark("inlier-shown", { detail: id });
  claim();
  prepare();
}

/** Fetch what comes next, claimed so that nobody else gets it meanwhile. */
async function prepare() {
  try {
    await trail.fill();
    let next = trail.peek();
    while (trail.queue && next && !(await claimed(next))) next = trail.peek();
    if (!next) return;
    const from = desk;
    await ahead.get(trail.address(next));
    from.dataset.ready = "next"; // the next one can be shown at once
  } catch { /* it is fetched when it is asked for, and then the person is told */
  } finally {
    letGo();
    showPlace();
  }
}

async function take(id) {
  await call("POST", `/v1/inspections/${id}/claim`);
  held.add(id);
}

/** Leave to others what this page has claimed and does not need: not shown, not next. */
function letGo(needed = [trail.current, trail.peek()]) {
  for (const id of held) {
    if (needed.includes(id)) continue;
    held.delete(id);
    call("DELETE", `/v1/inspections/${id}/claim`, undefined, { keepalive: true }).catch(() => { /* it runs out */ });
  }
}

async function claimed(id) {
  try {
    await take(id);
    return true;
  } catch (error) {
    if (error.status !== 409) throw error;
    trail.drop(id);
    return false;
  }
}

async function claim() {
  if (!trail.queue) return;
  const id = trail.current;
  try {
    await take(id);
  } catch (error) {
    if (error.status !== 409 || id !== trail.current) return;
    notice(t("desk.claimed", { who: error.document.claimed_by, serial: serial() }));
    trail.drop(id);
    await prepare();
    step(1);
  }
}

function step(by) {
  moving = moving.then(async () => {
    const id = trail.peek(by);
    if (!id) {
      if (by > 0) notice(t("desk.all_done"));
      return;
    }
    trail.go(by);
    try {
      await show(id);
    } catch (error) {
      trail.go(-by);
      complain(error);
    }
  });
  return moving;
}

function decide(decision) {
  moving = moving.then(() => {
    if (field("decision").disabled) return;
    const { id } = desk.dataset;
    const own = decided.filter(entry => entry.id === id && !entry.shown).length;
    const revision = Number(desk.dataset.revision) + own;
    const reason = desk.querySelector('[name="reason"]:checked')?.value ?? null;
    const comment = field("comment").value.trim() || null;
    outbox.add({ id, serial: serial(), decision, reason, comment, expected_revision: revision });
    decided.push({ id, serial: serial(), decision, revision: revision + 1 });
    held.delete(id); // the decision ends the claim
    field("comment").blur();
    if (!trail.peek(1)) mark(decision);
  });
  if (trail.peek(1)) step(1);
  else moving.then(() => notice(t("desk.all_done")));
}

/** Where there is no next one, show what was decided on this one. */
function mark(decision) {
  for (const button of desk.querySelectorAll('[name="decision"]')) {
    button.toggleAttribute("aria-current", button.value === decision);
  }
  showPlace();
}

function undo() {
  const last = decided.pop();
  if (!last) return notice(t("desk.nothing_to_undo"));
  if (!outbox.drop(last.id)) {
    const { id, serial: name, revision } = last;
    outbox.add({ id, serial: name, decision: "withdrawn", reason: null, comment: null, expected_revision: revision });
  }
  notice(t("desk.undone", { decision: t(`desk.${last.decision}`) }));
  mark(null);
  if (last.id === trail.current) return;
  moving = moving.then(async () => {
    await settled();
    trail.jump(last.id);
    ahead.forget(trail.address(last.id));
    await show(last.id).catch(complain);
  });
}

/** When what was decided has arrived, or cannot arrive just now: the page then shows the true revision. */
async function settled() {
  for (let waited = 0; outbox.waiting.length && waited < 20; waited += 1) {
    await new Promise(done => setTimeout(done, 50));
  }
}

function chooseReason(index) {
  const radio = desk.querySelectorAll('[name="reason"]')[index];
  if (radio) radio.checked = !radio.checked;
}

const help = document.getElementById("help");
const actions = {
  next: () => step(1),
  previous: () => step(-1),
  undo,
  heat: () => heat.toggle(),
  help: () => help.showModal(),
  in: () => viewer.zoomBy(1),
  out: () => viewer.zoomBy(-1),
  fit: () => viewer.fit(),
  actual: () => viewer.actual(),
};

keys({
  g: () => decide("good"),
  d: () => decide("defective"),
  u: () => decide("unsure"),
  "ctrl+z": undo,
  j: actions.next, arrowright: actions.next, arrowdown: actions.next,
  k: actions.previous, arrowleft: actions.previous, arrowup: actions.previous,
  c: () => field("comment").focus(),
  " ": actions.heat,
  "?": actions.help,
  "+": actions.in, "=": actions.in, "-": actions.out,
  f: actions.fit, x: actions.actual,
  "shift+arrowleft": () => viewer.panBy(-0.2, 0), "shift+arrowright": () => viewer.panBy(0.2, 0),
  "shift+arrowup": () => viewer.panBy(0, -0.2), "shift+arrowdown": () => viewer.panBy(0, 0.2),
  ...Object.fromEntries(Array.from({ length: 9 }, (_, index) => [String(index + 1), () => chooseReason(index)])),
});
document.addEventListener("keydown", event => {
  if (event.key === "Escape" && event.target === field("comment")) event.target.blur();
});
setInterval(() => { if (!document.hidden) claim(); }, CLAIM_AGAIN_MS);
addEventListener("pagehide", () => letGo([]));
addEventListener("pageshow", event => { if (event.persisted) claim(); });

equip();
claim();
prepare();
