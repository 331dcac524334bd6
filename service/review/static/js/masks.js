// The masks page: paint what is not inspected, see what that would change, save it with a reason.
import { call, request } from "./api.js";
import { Easel } from "./easel.js";
import { showFlips } from "./flips.js";
import { keys } from "./keys.js";
import { newest } from "./newest.js";
import { complain, notice } from "./notice.js";
import { Painting } from "./painting.js";
import { saving } from "./saving.js";
import { number, share, t } from "./strings.js";
import { Viewer } from "./viewer.js";

const REST_MS = 400;
const LOOKED_AT = 100; // stored inspections, for the preview
const page = document.getElementById("masks");
const { api } = page.dataset;
const stage = document.getElementById("stage");
const size = document.getElementById("size");
const buttons = Object.fromEntries([...page.querySelectorAll("[data-do]")].map(button => [button.dataset.do, button]));
const version = Number(page.dataset.version);
let painting, resting;

const viewer = new Viewer(stage, {
  shown(zoom) {
    document.getElementById("zoom").textContent = `${Math.round(100 * zoom)} %`;
    easel?.draw();
  },
  pointed: () => {},
});
const easel = new Easel(stage, viewer, () => painting);

/** Begin on an image of a size, with the mask in force. */
async function begin(width, height) {
  painting = new Painting(width, height, changed);
  size.max = String(Math.round(Math.max(painting.width, painting.height) / 4));
  setSize(Math.round(Math.max(painting.width, painting.height) / 20));
  for (const name of ["brush", "erase", "polygon", "clear"]) buttons[name].disabled = false;
  if (page.dataset.present) painting.start(await stored(version));
  stage.querySelector(".still")?.remove();
  showState();
  easel.draw();
}

async function stored(number) {
  const response = await request("GET", `${api}?version=${number}`, undefined, { headers: { Accept: "image/png" } });
  return createImageBitmap(await response.blob());
}

function changed() {
  easel.draw();
  showState();
  clearTimeout(resting);
  resting = setTimeout(preview, REST_MS);
}

function showState() {
  buttons.undo.disabled = !painting.done;
  buttons.redo.disabled = painting.done === painting.steps.length;
  const part = painting.share();
  document.getElementById("share").textContent = part ? t("masks.share", { share: share(part) }) : t("masks.nothing");
  save?.possible(painting.dirty, t(painting.dirty ? "masks.save_what" : "masks.save_nothing"));
  return part;
}

const ask = newest(async image => {
  const effect = document.getElementById("effect-text");
  try {
    const found = await (await request("POST", `${api}/preview?limit=${LOOKED_AT}`, image)).json();
    const values = { count: number(found.inspections, 0), flips: number(found.flips.total, 0) };
    effect.textContent = found.inspections ? t("masks.effect", values) : t("masks.effect_none");
    const missed = found.flips.items.filter(flip => flip.review_state === "defective" && flip.after === "PASS").length;
    document.getElementById("missed").hidden = !missed;
    document.getElementById("missed").textContent = t("masks.missed", { count: number(missed, 0) });
    document.getElementById("uncovers").hidden = !found.uncovers;
    showFlips({ ...found.flips, next: null });
  } catch (error) {
    effect.textContent = error.message;
    showFlips({ total: 0, items: [], next: null });
  }
});

async function preview() {
  if (!painting.dirty) {
    document.getElementById("effect-text").textContent = t("masks.effect_first");
    for (const id of ["missed", "uncovers"]) document.getElementById(id).hidden = true;
    return showFlips({ total: 0, items: [], next: null });
  }
  ask(await painting.png());
}

function setSize(value) {
  size.value = String(value);
  easel.size = Number(size.value);
  document.getElementById("size-text").textContent = `${size.value} px`;
  easel.draw();
}

function choose(tool) {
  easel.choose(tool);
  for (const name of ["brush", "erase", "polygon", "move"]) buttons[name].ariaPressed = String(name === tool);
}

/** An image from the person's own machine; it is not sent anywhere. */
async function open(file) {
  const bitmap = await createImageBitmap(file).catch(() => null);
  if (!bitmap) return notice(t("masks.unreadable", { name: file.name }), { kind: "bad" });
  easel.background = bitmap;
  [viewer.width, viewer.height] = [bitmap.width, bitmap.height];
  document.getElementById("none")?.remove();
  stage.hidden = false;
  viewer.fit();
  if (!painting) await begin(bitmap.width, bitmap.height);
  easel.draw();
}

const save = document.getElementById("save") && saving({
  name: "masks",
  version,
  forget: [],
  async send(why, basedOn, action) {
    const where = `${api}?${new URLSearchParams({ why, based_on: basedOn })}`;
    return action === "off" || !painting.share()
      ? call("DELETE", where)
      : call("PUT", where, await painting.png());
  },
  async theirs() {
    const [row] = (await call("GET", `${api}/versions?limit=1`)).items;
    return { version: row.version, text: t("masks.conflict", { number: row.version, who: row.who, why: row.why }) };
  },
});

const help = document.getElementById("help");
const actions = {
  brush: () => choose("brush"),
  erase: () => choose("erase"),
  polygon: () => choose("polygon"),
  move: () => choose("move"),
  undo: () => (easel.busy ? easel.back() : painting?.undo()),
  redo: () => painting?.redo(),
  clear: () => painting?.add({ kind: "clear" }),
  in: () => viewer.zoomBy(1),
  out: () => viewer.zoomBy(-1),
  fit: () => viewer.fit(),
  help: () => help.showModal(),
  smaller: () => setSize(Math.max(1, Math.round(easel.size / 1.2) - 1)),
  larger: () => setSize(Math.round(easel.size * 1.2) + 1),
};
for (const [name, button] of Object.entries(buttons)) if (actions[name]) button.addEventListener("click", actions[name]);
size.addEventListener("input", () => setSize(Number(size.value)));
document.getElementById("file").addEventListener("change", event => event.target.files[0] && open(event.target.files[0]));
for (const button of page.querySelectorAll("[data-load]")) {
  button.addEventListener("click", async () => {
    if (!painting) return notice(t("masks.no_image"), { kind: "bad" });
    painting.add({ kind: "load", bitmap: await stored(button.dataset.load).catch(complain) });
    stage.scrollIntoView({ block: "center" });
  });
}
for (const select of document.querySelectorAll("#which select")) {
  select.addEventListener("change", () => select.form.submit());
}

keys({
  b: actions.brush, e: actions.erase, p: actions.polygon, h: actions.move,
  "ctrl+z": actions.undo, "ctrl+shift+z": actions.redo, "ctrl+y": actions.redo,
  delete: actions.clear,
  enter: () => easel.close(), escape: () => easel.cancel(), backspace: () => easel.back(),
  ",": actions.smaller, ".": actions.larger,
  "+": actions.in, "=": actions.in, "-": actions.out, f: actions.fit,
  "shift+arrowleft": () => viewer.panBy(-0.2, 0), "shift+arrowright": () => viewer.panBy(0.2, 0),
  "shift+arrowup": () => viewer.panBy(0, -0.2), "shift+arrowdown": () => viewer.panBy(0, 0.2),
  " ": () => { easel.moving = true; },
  "?": actions.help,
});
addEventListener("keyup", event => { if (event.key === " ") easel.moving = false; });
addEventListener("beforeunload", event => {
  if (painting?.dirty && !save?.sending()) event.preventDefault();
});

choose("brush");
viewer.fit(); // before anything can be painted
if (page.dataset.image) begin(viewer.width, viewer.height).catch(complain);
