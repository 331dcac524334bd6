// Brush, eraser and polygon over a picture that zooms and moves: pointers become strokes, two fingers the viewer's.
import { COLOUR } from "./painting.js";

const NEAR_PX = 12; // of the first corner, on the screen: the polygon is closed

export class Easel {
  /** stage: the element around the picture; viewer: its viewer; painting(): what is painted on. */
  constructor(stage, viewer, painting) {
    [this.stage, this.viewer, this.painting] = [stage, viewer, painting];
    this.overlay = stage.querySelector("canvas");
    this.background = null; // an image of the person's own, in place of the inspection's
    [this.tool, this.size, this.moving] = ["brush", 20, false];
    [this.line, this.corners, this.pointer] = [null, [], null];
    for (const [name, run] of [["pointerdown", this.#down], ["pointermove", this.#move], ["pointerup", this.#up], ["pointercancel", this.#cancel], ["dblclick", this.#double]]) {
      stage.addEventListener(name, event => run.call(this, event), { capture: true });
    }
    stage.addEventListener("pointerleave", () => {
      this.pointer = null;
      this.draw();
    });
  }

  choose(tool) {
    this.tool = tool;
    this.cancel();
    this.stage.dataset.tool = tool;
  }

  /** End a polygon: from three corners on it is painted. */
  close() {
    if (this.corners.length > 2) this.painting().add({ kind: "area", points: this.corners });
    this.corners = [];
    this.draw();
  }

  /** Take the last corner back. */
  back() {
    this.corners.pop();
    this.draw();
  }

  cancel() {
    if (this.line) this.painting().drop();
    [this.line, this.corners] = [null, []];
    this.draw();
  }

  get busy() {
    return Boolean(this.line || this.corners.length);
  }

  /** Where a pointer is, in pixels of the mask. */
  #at(event) {
    const box = this.stage.getBoundingClientRect();
    const { x, y, zoom } = this.viewer.view;
    const scale = this.painting().width / this.viewer.width;
    return {
      x: (x + (event.clientX - box.left - box.width / 2) / zoom) * scale,
      y: (y + (event.clientY - box.top - box.height / 2) / zoom) * scale,
    };
  }

  #paints(event) {
    return this.tool !== "move" && !this.moving && event.button < 1 && this.painting();
  }

  #down(event) {
    if (!this.#paints(event)) return;
    if (this.line && event.pointerType === "touch") return this.#pinch();
    event.stopPropagation();
    event.preventDefault();
    const at = this.#at(event);
    if (this.tool === "polygon") return this.#corner(at);
    this.stage.setPointerCapture(event.pointerId);
    this.first = event;
    this.line = { kind: "line", size: this.size, erase: this.tool === "erase", points: [at] };
    this.painting().sketch(this.line);
    this.draw();
  }

  /** A second finger: what the first one began was no stroke. */
  #pinch() {
    this.stage.releasePointerCapture(this.first.pointerId);
    this.viewer.touches.set(this.first.pointerId, this.first);
    this.cancel();
  }

  #corner(at) {
    const first = this.corners[0];
    const near = (NEAR_PX / this.viewer.view.zoom) * (this.painting().width / this.viewer.width);
    if (first && this.corners.length > 2 && Math.hypot(at.x - first.x, at.y - first.y) < near) return this.close();
    this.corners.push(at);
    this.draw();
  }

  #move(event) {
    if (!this.painting()) return;
    this.pointer = this.#at(event);
    if (this.line && event.pointerId === this.first.pointerId) {
      event.stopPropagation();
      for (const each of event.getCoalescedEvents?.() ?? [event]) {
        this.line.points.push(this.#at(each));
        this.painting().sketch(this.line);
      }
    }
    this.draw();
  }

  #up(event) {
    if (!this.line || event.pointerId !== this.first.pointerId) return;
    event.stopPropagation();
    const { line } = this;
    this.line = null;
    this.painting().add(line);
  }

  #cancel(event) {
    if (this.line && event.pointerId === this.first.pointerId) this.cancel();
  }

  #double(event) {
    if (!this.#paints(event)) return;
    event.stopPropagation();
    if (this.tool === "polygon") this.close();
  }

  draw() {
    const { overlay, viewer } = this;
    const painting = this.painting();
    const box = this.stage.getBoundingClientRect();
    const ratio = devicePixelRatio;
    const [width, height] = [Math.round(box.width * ratio), Math.round(box.height * ratio)];
    if (overlay.width !== width || overlay.height !== height) [overlay.width, overlay.height] = [width, height];
    const context = overlay.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, width, height);
    const { x, y, zoom } = viewer.view;
    if (!painting || !zoom) return;
    context.setTransform(zoom * ratio, 0, 0, zoom * ratio, (box.width / 2 - x * zoom) * ratio, (box.height / 2 - y * zoom) * ratio);
    if (this.background) context.drawImage(this.background, 0, 0, viewer.width, viewer.height);
    context.globalAlpha = 0.5;
    context.drawImage(painting.canvas, 0, 0, viewer.width, viewer.height);
    context.globalAlpha = 1;
    const scale = viewer.width / painting.width;
    context.scale(scale, scale);
    const line = 1.5 / (zoom * scale);
    if (this.corners.length) this.#outline(context, line);
    if (this.pointer && (this.tool === "brush" || this.tool === "erase")) this.#ring(context, line);
  }

  #outline(context, line) {
    const corners = this.pointer ? [...this.corners, this.pointer] : this.corners;
    context.beginPath();
    for (const { x, y } of corners) context.lineTo(x, y);
    context.closePath();
    context.fillStyle = context.strokeStyle = COLOUR;
    context.globalAlpha = 0.25;
    context.fill();
    context.globalAlpha = 1;
    context.lineWidth = line;
    context.stroke();
    for (const { x, y } of this.corners) context.fillRect(x - 3 * line, y - 3 * line, 6 * line, 6 * line);
  }

  #ring(context, line) {
    for (const [colour, width] of [["black", 3 * line], ["white", line]]) {
      context.beginPath();
      context.arc(this.pointer.x, this.pointer.y, this.size / 2, 0, 2 * Math.PI);
      [context.strokeStyle, context.lineWidth] = [colour, width];
      context.stroke();
    }
  }
}
