// Try an image: choose, drop or paste it; watch what happens to it; nothing of it stays.
import { call, Problem, request } from "./api.js";
import { blob, Film } from "./film.js";
import { Heat } from "./heat.js";
import { keys } from "./keys.js";
import { complain } from "./notice.js";
import { t } from "./strings.js";
import { Viewer } from "./viewer.js";

const element = id => document.getElementById(id);
const recipes = JSON.parse(element("recipes").textContent);
const [recipe, profile, problem] = ["recipe", "profile", "problem"].map(element);
const film = new Film(element("film"));
const addresses = []; // of pictures that are shown
let image = null;
let running = null;
let viewer = null;
let heat = null;

function listProfiles() {
  const known = recipes[recipe.value];
  const before = profile.value;
  profile.replaceChildren(...Object.entries(known.calls).map(([name, count]) => {
    const chosen = name === known.default ? "try.profile_default" : "try.profile";
    return new Option(t(chosen, { name, count }), name);
  }));
  profile.value = before in known.calls ? before : known.default;
}

/** The answer's lines as they come. */
async function* lines(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n");
    rest = parts.pop();
    for (const part of parts) yield JSON.parse(part);
  }
}

const asBody = () => new Blob([image], { type: "application/octet-stream" }); // what it is, its bytes tell
const chosen = () => new URLSearchParams({ recipe: recipe.value, profile: profile.value });

async function run() {
  if (!image) return;
  running?.abort();
  const abort = running = new AbortController();
  problem.hidden = true;
  try {
    const response = await request("POST", `/try?${chosen()}`, asBody(), { signal: abort.signal });
    for await (const event of lines(response)) {
      if (abort.signal.aborted) return;
      await heard[event.event](event);
    }
  } catch (error) {
    if (error.name !== "AbortError") failed(error);
  } finally {
    if (running === abort) running = null;
  }
}

const heard = {
  begun({ kind, steps }) {
    element("invite").hidden = true;
    element("stage").hidden = false;
    clear();
    element("panes").replaceChildren(element("waiting-panes").content.cloneNode(true));
    element("side").replaceChildren();
    element("progress").hidden = false;
    element("progress").max = steps;
    element("progress").value = 0;
    film.begin(kind, steps);
  },
  async frame(frame) {
    element("progress").value = frame.number;
    await film.add(frame);
  },
  result({ html, pictures }) {
    const parts = new DOMParser().parseFromString(html, "text/html"); // our own template, escaped
    for (const part of parts.querySelectorAll("[data-into]")) element(part.dataset.into).replaceChildren(part);
    for (const [name, text] of Object.entries(pictures)) {
      const address = URL.createObjectURL(blob(text, name === "image" ? "image/jpeg" : "image/png"));
      addresses.push(address);
      document.querySelector(`[data-picture="${name}"]`).setAttribute("href", address);
    }
    element("progress").hidden = true;
    equip();
    film.end();
  },
  problem(document) {
    throw new Problem(500, document);
  },
};

function clear() {
  viewer?.close();
  viewer = heat = null;
  while (addresses.length) URL.revokeObjectURL(addresses.pop());
}

function equip() {
  const desk = element("desk");
  heat = new Heat(desk);
  viewer = new Viewer(desk, {
    shown: zoom => { element("zoom").textContent = `${Math.round(100 * zoom)} %`; },
    pointed: () => {},
  });
  // The arrows move the slider here, not the film.
  element("opacity").addEventListener("keydown", event => event.stopPropagation());
  for (const button of document.querySelectorAll("#panes [data-do], #side [data-do]")) {
    button.addEventListener("click", () => actions[button.dataset.do]());
  }
}

function failed(error) {
  if (error.status === 401 || error.status === 0) return complain(error);
  clear();
  element("stage").hidden = true;
  element("invite").hidden = false;
  problem.textContent = error.message || String(error);
  problem.hidden = false;
}

function take(file) {
  if (!file) return;
  image = file;
  element("chosen").textContent = file.name || t("try.pasted");
  run();
}

async function post({ currentTarget: button } = { currentTarget: document.querySelector('[data-do="post"]') }) {
  button.disabled = true;
  try {
    const headers = { Prefer: "wait=60" };
    const made = await call("POST", `/v1/inspections?${chosen()}`, asBody(), { headers });
    location.assign(made.links.page);
  } catch (error) {
    button.disabled = false;
    complain(error);
  }
}

const actions = {
  heat: () => heat?.toggle(),
  in: () => viewer?.zoomBy(1),
  out: () => viewer?.zoomBy(-1),
  fit: () => viewer?.fit(),
  post,
};

for (const id of ["file", "camera"]) {
  element(id).addEventListener("change", event => {
    take(event.target.files[0]);
    event.target.value = ""; // the same file may be chosen again
  });
}
recipe.addEventListener("change", () => { listProfiles(); run(); });
profile.addEventListener("change", run);
element("setup").addEventListener("submit", event => event.preventDefault());
document.addEventListener("paste", event => take(event.clipboardData.files[0]));
document.addEventListener("dragover", event => {
  event.preventDefault();
  document.body.classList.add("dragging");
});
document.addEventListener("dragleave", event => {
  if (!event.relatedTarget) document.body.classList.remove("dragging");
});
document.addEventListener("drop", event => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  take(event.dataTransfer.files[0]);
});
keys({
  " ": () => film.toggle(),
  arrowright: () => film.step(1), arrowleft: () => film.step(-1),
  h: actions.heat, "+": actions.in, "=": actions.in, "-": actions.out, f: actions.fit,
});

listProfiles();
