// The thresholds page: both limits as sliders and numbers, what they would change while they move, saving.
import { call } from "./api.js";
import { showFlips } from "./flips.js";
import { newest } from "./newest.js";
import { complain } from "./notice.js";
import { saving } from "./saving.js";
import { Slider } from "./slider.js";
import { number, share, t } from "./strings.js";
import { suggestions } from "./suggestions.js";

const FLIPS = 24;
const REST_MS = 200; // pictures are fetched, and figures read out, when a limit has come to rest
const RATES = ["overkill", "escape", "review_rate", "reject_rate"];

const page = document.getElementById("tuning");
const given = page.dataset;
const numbers = document.getElementById("limits");
const axis = { low: Number(given.low), high: Number(given.high) };
const base = { review: Number(given.baseReview), reject: Number(given.baseReject) };
const limits = { review: Number(given.review), reject: Number(given.reject) };
const address = path => `${given.api}${path}?${given.where}`;
const sample = Number(given.limit);
const sliders = {};
const plot = document.getElementById("plot");
plot.classList.add("live");
let restoring = null; // an old version, while the limits stand where it had them
let resting;
let reached = true; // whether the last preview was answered

for (const element of plot.querySelectorAll(".handle")) {
  const name = element.dataset.limit;
  sliders[name] = new Slider(element, plot, axis, value => move(name, value));
  numbers.elements[name].addEventListener("input", () => typed(name));
  numbers.elements[name].addEventListener("change", event => event.target.reportValidity());
}

/** Put one limit somewhere; they push against each other, and a slider stays on its axis. */
function move(name, value) {
  const [lowest, highest] = name === "review" ? [axis.low, limits.reject] : [limits.review, axis.high];
  place({ [name]: Math.round(100 * Math.min(Math.max(value, lowest), highest)) / 100 });
}

function typed(name) {
  const field = numbers.elements[name];
  const value = field.valueAsNumber;
  const other = name === "review" ? limits.reject : limits.review;
  const wrong = name === "review" ? value > other : value < other;
  field.setCustomValidity(wrong ? t("thresholds.crossed") : "");
  if (field.checkValidity()) place({ [name]: value }, name);
}

/** Where the limits are from now on; everything else follows. */
function place(values, typedIn = null) {
  Object.assign(limits, values);
  for (const name of Object.keys(limits)) {
    if (name === typedIn) continue;
    numbers.elements[name].value = String(limits[name]);
    numbers.elements[name].setCustomValidity("");
  }
  draw();
  const where = new URL(location.href);
  for (const name of Object.keys(limits)) {
    if (moved()) where.searchParams.set(name, limits[name]);
    else where.searchParams.delete(name);
  }
  history.replaceState(null, "", where);
  document.getElementById("effect").classList.add("behind");
  ask({ ...limits });
}

function draw() {
  const label = value => `${number(value)} σ`;
  sliders.review.show(limits.review, axis.low, limits.reject, number(limits.review), label(limits.review));
  sliders.reject.show(limits.reject, limits.review, axis.high, number(limits.reject), label(limits.reject));
  const at = value => (100 * (Math.min(Math.max(value, axis.low), axis.high) - axis.low)) / (axis.high - axis.low);
  const edges = [0, at(limits.review), at(limits.reject), 100];
  for (const [index, zone] of [...plot.querySelectorAll(".zone")].entries()) {
    zone.setAttribute("x", `${edges[index]}%`);
    zone.setAttribute("width", `${edges[index + 1] - edges[index]}%`);
  }
  page.querySelector('[data-do="reset"]').disabled = !moved();
  sayWhat();
}

/** What saving would do now. */
function sayWhat() {
  if (restoring && (restoring.review !== limits.review || restoring.reject !== limits.reject)) restoring = null;
  const what = restoring ? "save_restores" : moved() ? "save_what" : "save_nothing";
  const values = { review: number(limits.review), reject: number(limits.reject), number: restoring?.version };
  save?.possible(moved(), t(`thresholds.${what}`, values));
}

function moved() {
  return limits.review !== base.review || limits.reject !== base.reject;
}

const preview = (wanted, cursor = null) =>
  call("POST", address("/preview"), { ...wanted, limit: sample, bins: 1, flips_limit: FLIPS, flips_cursor: cursor });

const ask = newest(async (wanted, isNewest) => {
  try {
    const found = await preview(wanted);
    reached = true;
    showRates(found);
    clearTimeout(resting);
    if (!isNewest()) return;
    document.getElementById("effect").classList.remove("behind");
    resting = setTimeout(() => rest(wanted, found), REST_MS);
  } catch (error) {
    if (reached) complain(error); // once, not at every step
    reached = false;
  }
});

function showRates(found) {
  for (const name of RATES) {
    const box = page.querySelector(`[data-rate="${name}"]`);
    const { value, low, high } = found[name];
    if (value === null) continue; // it depends on what is reviewed, not on the limits: said already
    box.querySelector(".value").textContent = share(value);
    box.querySelector(".range").textContent = t("thresholds.range", { low: share(low), high: share(high) });
  }
  const box = page.querySelector('[data-rate="flips"]');
  box.querySelector(".value").textContent = number(found.flips.total, 0);
  const kinds = Object.entries(found.flips.kinds).map(([kind, count]) => `${kind.replace("->", " → ")} ${number(count, 0)}`);
  box.querySelector(".kinds").textContent = kinds.join("\n") || t("thresholds.no_flips");
}

function rest(wanted, found) {
  showFlips(found.flips, cursor => preview(wanted, cursor).then(next => next.flips).catch(complain));
  const said = RATES.filter(name => found[name].value !== null);
  const rates = said.map(name => `${t(`thresholds.${name}`)} ${share(found[name].value)}`);
  document.getElementById("spoken").textContent = [...rates, `${t("thresholds.flips")} ${number(found.flips.total, 0)}`].join(", ");
}

const save = document.getElementById("save") && saving({
  name: "thresholds",
  version: Number(given.version),
  forget: ["review", "reject", "below"],
  send: (why, basedOn) => restoring
    ? call("POST", address(`/${restoring.version}/restore`), { why, based_on: basedOn })
    : call("POST", address(""), { ...limits, why, based_on: basedOn }),
  async theirs() {
    const { current } = await call("GET", `${address("")}&limit=1`);
    const values = { number: current.version, who: current.who, why: current.why, review: number(current.review), reject: number(current.reject) };
    return { version: current.version, text: t("thresholds.conflict", values) };
  },
});
suggestions({ address, sample, place });
page.querySelector('[data-do="reset"]').addEventListener("click", () => place({ ...base }));
for (const button of page.querySelectorAll("[data-restore]")) {
  button.addEventListener("click", () => {
    const { restore, review, reject } = button.dataset;
    place({ review: Number(review), reject: Number(reject) });
    restoring = { version: restore, ...limits };
    sayWhat();
    (document.querySelector("#save textarea") ?? sliders.review.element).focus();
  });
}
for (const select of document.querySelectorAll("#which select")) {
  select.addEventListener("change", () => {
    // Another recipe has other models; another model other profiles.
    const after = { recipe: ["model", "profile"], model: ["profile"] }[select.name] ?? [];
    for (const name of after) select.form.elements[name]?.remove();
    select.form.submit();
  });
}
numbers.addEventListener("submit", event => event.preventDefault());
draw();
ask({ ...limits });
