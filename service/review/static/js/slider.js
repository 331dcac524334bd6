// A limit on an axis as a slider: drag it by mouse, pen or finger, or move it by keys.

const STEP = 0.05;
const FINE = 0.01;
const PAGE = 0.5;

export class Slider {
  /** moved(value): asked for a value; the page answers with `show`. */
  constructor(element, plot, axis, moved) {
    [this.element, this.plot, this.axis, this.moved] = [element, plot, axis, moved];
    this.grip = element.querySelector(".grip");
    element.hidden = false;
    element.addEventListener("pointerdown", event => this.#take(event));
    element.addEventListener("pointermove", event => this.#drag(event));
    for (const name of ["pointerup", "pointercancel"]) element.addEventListener(name, () => this.#leave());
    element.addEventListener("keydown", event => this.#key(event));
  }

  /** Stand at a value between two others; text is what is seen, spoken what is read out. */
  show(value, lowest, highest, text, spoken) {
    [this.value, this.lowest, this.highest] = [value, lowest, highest];
    const { low, high } = this.axis;
    const share = (Math.min(Math.max(value, low), high) - low) / (high - low);
    this.element.style.left = `${100 * share}%`;
    this.grip.textContent = text;
    this.element.ariaValueNow = String(value);
    this.element.ariaValueMin = String(lowest);
    this.element.ariaValueMax = String(highest);
    this.element.ariaValueText = spoken;
  }

  #at(event) {
    const box = this.plot.getBoundingClientRect();
    return this.axis.low + ((event.clientX - box.left) / box.width) * (this.axis.high - this.axis.low);
  }

  #take(event) {
    if (event.button > 0) return;
    event.preventDefault();
    this.element.focus({ preventScroll: true });
    this.element.setPointerCapture(event.pointerId);
    this.element.classList.add("dragged");
    this.offset = this.#at(event) - Math.min(Math.max(this.value, this.axis.low), this.axis.high);
  }

  #drag(event) {
    if (this.element.hasPointerCapture(event.pointerId)) this.moved(this.#at(event) - this.offset);
  }

  #leave() {
    this.element.classList.remove("dragged");
  }

  #key(event) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const step = event.shiftKey ? FINE : STEP;
    const wanted = {
      ArrowRight: this.value + step, ArrowUp: this.value + step,
      ArrowLeft: this.value - step, ArrowDown: this.value - step,
      PageUp: this.value + PAGE, PageDown: this.value - PAGE,
      Home: this.lowest, End: this.highest,
    }[event.key];
    if (wanted === undefined) return;
    event.preventDefault();
    this.moved(wanted);
  }
}
