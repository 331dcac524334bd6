// The training-set audit: mark the image that has the focus, go on to the next; every mark can be taken back.
import { call } from "./api.js";
import { keys } from "./keys.js";
import { complain } from "./notice.js";

const form = document.getElementById("audit");
const cards = form ? [...form.querySelectorAll(".suspect")] : [];
const undoButton = document.getElementById("undo");
const done = []; // {card, before}, the newest last
let current = cards[0];
let sending = Promise.resolve(); // one after the other: the last mark of an image is the one that stands

function select(card, { focus = true } = {}) {
  if (!card) return;
  current.tabIndex = -1;
  current = card;
  current.tabIndex = 0;
  if (focus) current.focus();
}

function show(card, mark) {
  const before = card.dataset.mark;
  for (const [name, change] of [[before, -1], [mark, 1]]) {
    const count = name && document.getElementById(`count-${name}`);
    if (count) count.textContent = Number(count.textContent) + change;
  }
  card.dataset.mark = mark;
  for (const button of card.querySelectorAll("[data-mark]")) {
    button.ariaPressed = String(button.dataset.mark === mark);
    button.name = button.dataset.mark === mark ? "none" : button.dataset.mark;
  }
}

function send(card, mark, before) {
  const body = { image: card.dataset.image, mark: mark || null };
  sending = sending.then(() => call("POST", form.dataset.marks, body)).catch(error => {
    show(card, before);
    forget(card);
    complain(error);
  });
}

function forget(card) {
  const last = done.findLastIndex(each => each.card === card);
  if (last >= 0) done.splice(last, 1);
  undoButton.disabled = !done.length;
}

function decide(card, mark, next) {
  const before = card.dataset.mark;
  if (before !== mark) {
    done.push({ card, before });
    undoButton.disabled = false;
    show(card, mark);
    send(card, mark, before);
  }
  select(next ?? card);
}

function undo() {
  const last = done.pop();
  if (!last) return;
  undoButton.disabled = !done.length;
  const wrong = last.card.dataset.mark;
  show(last.card, last.before);
  send(last.card, last.before, wrong);
  select(last.card);
}

function step(by) {
  return cards[Math.min(cards.length - 1, Math.max(0, cards.indexOf(current) + by))];
}

/** The card above (-1) or below (1): that of the next row nearest to this one's left edge. */
function beside(direction) {
  const here = current.getBoundingClientRect();
  const rows = cards.map(card => ({ card, box: card.getBoundingClientRect() }));
  const others = rows.filter(({ box }) => direction * (box.top - here.top) > 1);
  if (!others.length) return current;
  const edge = direction > 0 ? Math.min(...others.map(({ box }) => box.top)) : Math.max(...others.map(({ box }) => box.top));
  const row = others.filter(({ box }) => Math.abs(box.top - edge) <= 1);
  const distance = ({ box }) => Math.abs(box.left - here.left);
  return row.reduce((best, one) => (distance(one) < distance(best) ? one : best)).card;
}

if (form) {
  document.getElementById("keys").hidden = false;
  select(cards[0], { focus: !location.hash });
  undoButton.addEventListener("click", undo);
  form.addEventListener("focusin", event => {
    const card = event.target.closest(".suspect");
    if (card && card !== current) select(card, { focus: false });
  });
  form.addEventListener("submit", event => {
    const button = event.submitter;
    const card = button?.closest(".suspect");
    if (!card) return;
    event.preventDefault();
    select(card, { focus: false });
    decide(card, card.dataset.mark === button.dataset.mark ? "" : button.dataset.mark, card);
  });
  keys({
    d: () => decide(current, "defective", step(1)),
    g: () => decide(current, "fine", step(1)),
    arrowright: () => select(step(1)),
    arrowleft: () => select(step(-1)),
    arrowdown: () => select(beside(1)),
    arrowup: () => select(beside(-1)),
    u: undo,
    "ctrl+z": undo,
  });
}
