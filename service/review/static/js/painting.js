// A mask as it is painted: strokes and areas on top of each other, each of which can be taken back.

const LONGEST = 2048; // a mask needs no more pixels than maps have, by far
export const COLOUR = "#ff4fd8";

function blank(width, height) {
  const canvas = new OffscreenCanvas(width, height);
  return [canvas, canvas.getContext("2d", { willReadFrequently: true })];
}

export class Painting {
  /** changed(): told after each change. Width and height are those of the image. */
  constructor(width, height, changed) {
    const shrink = Math.min(1, LONGEST / Math.max(width, height));
    [this.width, this.height] = [Math.max(1, Math.round(width * shrink)), Math.max(1, Math.round(height * shrink))];
    [this.canvas, this.context] = blank(this.width, this.height);
    [this.steps, this.done, this.changed] = [[], 0, changed];
    this.base = null;
  }

  /** What was there before anything was painted: a mask as the service stores it, white on black. */
  start(bitmap) {
    this.base = bitmap && this.#transparent(bitmap);
    this.#again();
  }

  get dirty() {
    return this.done > 0;
  }

  /** {kind: "line", size, erase, points} | {kind: "area", points} | {kind: "clear"} | {kind: "load", bitmap} */
  add(step) {
    this.steps.length = this.done;
    if (step.kind === "load") step.canvas = this.#transparent(step.bitmap);
    this.steps.push(step);
    this.done += 1;
    this.#again(); // anew: drawn piece by piece its edge is another one
    this.changed();
  }

  /** Show a line that is still being drawn; `add` or `drop` ends it. */
  sketch(line) {
    this.#draw({ ...line, points: line.points.slice(-2) });
  }

  drop() {
    this.#again();
  }

  undo() {
    if (!this.done) return;
    this.done -= 1;
    this.#again();
    this.changed();
  }

  redo() {
    if (this.done === this.steps.length) return;
    this.#draw(this.steps[this.done]);
    this.done += 1;
    this.changed();
  }

  /** Share of the image that is painted over. */
  share() {
    const { data } = this.context.getImageData(0, 0, this.width, this.height);
    let count = 0;
    for (let at = 3; at < data.length; at += 4) if (data[at] > 127) count += 1;
    return count / (this.width * this.height);
  }

  /** White where it is painted over, black elsewhere. */
  png() {
    const [canvas, context] = blank(this.width, this.height);
    context.drawImage(this.canvas, 0, 0);
    context.globalCompositeOperation = "source-in";
    context.fillStyle = "white";
    context.fillRect(0, 0, this.width, this.height);
    context.globalCompositeOperation = "destination-over";
    context.fillStyle = "black";
    context.fillRect(0, 0, this.width, this.height);
    return canvas.convertToBlob({ type: "image/png" });
  }

  #again() {
    this.context.clearRect(0, 0, this.width, this.height);
    if (this.base) this.context.drawImage(this.base, 0, 0);
    for (const step of this.steps.slice(0, this.done)) this.#draw(step);
  }

  #draw(step) {
    const { context } = this;
    context.globalCompositeOperation = step.erase ? "destination-out" : "source-over";
    context.fillStyle = context.strokeStyle = COLOUR;
    if (step.kind === "clear" || step.kind === "load") context.clearRect(0, 0, this.width, this.height);
    if (step.kind === "load") context.drawImage(step.canvas, 0, 0);
    if (step.kind !== "line" && step.kind !== "area") return;
    context.beginPath();
    for (const { x, y } of step.points) context.lineTo(x, y);
    if (step.kind === "area") return context.fill();
    if (step.points.length === 1) context.lineTo(step.points[0].x, step.points[0].y);
    [context.lineWidth, context.lineCap, context.lineJoin] = [step.size, "round", "round"];
    context.stroke();
  }

  #transparent(bitmap) {
    const [canvas, context] = blank(this.width, this.height);
    context.drawImage(bitmap, 0, 0, this.width, this.height);
    const pixels = context.getImageData(0, 0, this.width, this.height);
    const [red, green, blue] = [1, 3, 5].map(at => parseInt(COLOUR.slice(at, at + 2), 16));
    for (let at = 0; at < pixels.data.length; at += 4) {
      const hidden = pixels.data[at] > 127;
      pixels.data.set([red, green, blue, hidden ? 255 : 0], at);
    }
    context.putImageData(pixels, 0, 0);
    return canvas;
  }
}
