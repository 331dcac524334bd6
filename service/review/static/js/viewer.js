// Three pictures with one view: zoom and pan by setting the same viewBox, in pixels of the image, on all.

const MOST = 40; // screen pixels per image pixel
const PIXELS_FROM = 3; // from here on single pixels are shown as such
const STEP = 1.25;
const PREVIEW_PX = 1024; // longest side of the preview that is shown first

export class Viewer {
  /** desk: the element with the pictures; shown(zoom): told after each change; pointed(x, y): image pixel or null. */
  constructor(desk, { shown, pointed }) {
    this.pictures = [...desk.querySelectorAll("svg.picture")];
    [this.width, this.height] = [Number(desk.dataset.width), Number(desk.dataset.height)];
    [this.shown, this.pointed] = [shown, pointed];
    this.touches = new Map();
    this.fitted = true;
    for (const picture of this.pictures) this.#listen(picture);
    this.observer = new ResizeObserver(() => (this.fitted ? this.fit() : this.#draw()));
    if (this.pictures.length) this.observer.observe(this.pictures[0]);
  }

  close() {
    this.observer.disconnect();
  }

  get view() {
    return { x: this.x, y: this.y, zoom: this.zoom, fitted: this.fitted };
  }

  /** Show the same place as another viewer did, if it was zoomed in. */
  restore(view) {
    if (view.fitted) return;
    Object.assign(this, view);
    this.#draw();
  }

  fit() {
    const box = this.#box();
    if (!box.width) return;
    [this.x, this.y] = [this.width / 2, this.height / 2];
    this.zoom = this.#whole();
    this.fitted = true;
    this.#draw();
  }

  /** One pixel of the image is one of the screen. */
  actual() {
    this.fitted = false;
    this.zoom = 1 / devicePixelRatio;
    this.#draw();
  }

  zoomBy(steps, at = null) {
    const before = this.zoom;
    this.zoom = Math.min(MOST, Math.max(this.#whole() / 2, this.zoom * STEP ** steps));
    if (at) {
      const ratio = 1 - before / this.zoom;
      this.x += (at.x - this.x) * ratio;
      this.y += (at.y - this.y) * ratio;
    }
    this.fitted = false;
    this.#draw();
  }

  /** Move by shares of what is seen. */
  panBy(x, y) {
    const box = this.#box();
    this.x += (x * box.width) / this.zoom;
    this.y += (y * box.height) / this.zoom;
    this.fitted = false;
    this.#draw();
  }

  #box() {
    return this.pictures[0].getBoundingClientRect();
  }

  #whole() {
    const box = this.#box();
    return Math.min(box.width / this.width, box.height / this.height);
  }

  #draw() {
    const box = this.#box();
    if (!box.width || !this.zoom) return;
    this.x = Math.min(this.width, Math.max(0, this.x));
    this.y = Math.min(this.height, Math.max(0, this.y));
    const [w, h] = [box.width / this.zoom, box.height / this.zoom];
    const view = `${this.x - w / 2} ${this.y - h / 2} ${w} ${h}`;
    for (const picture of this.pictures) {
      picture.setAttribute("viewBox", view);
      picture.classList.toggle("pixels", this.zoom >= PIXELS_FROM);
    }
    const shown = this.zoom * devicePixelRatio;
    if (shown * Math.max(this.width, this.height) > PREVIEW_PX) this.#sharpen();
    this.shown(shown);
  }

  /** Once somebody looks closer than the preview can show: the picture in its own resolution. */
  #sharpen() {
    for (const picture of this.pictures) {
      const image = picture.querySelector("image[data-sharp]");
      if (!image) continue;
      const sharp = new Image();
      sharp.src = image.dataset.sharp;
      delete image.dataset.sharp;
      sharp.decode().then(() => image.setAttribute("href", sharp.src)).catch(() => { /* the preview stays */ });
    }
  }

  #at(event) {
    const box = event.currentTarget.getBoundingClientRect();
    return {
      x: this.x + (event.clientX - box.left - box.width / 2) / this.zoom,
      y: this.y + (event.clientY - box.top - box.height / 2) / this.zoom,
    };
  }

  #listen(picture) {
    picture.addEventListener("wheel", event => {
      event.preventDefault();
      const lines = event.deltaY / (event.deltaMode === 0 ? 100 : 3);
      this.zoomBy(-Math.max(-3, Math.min(3, event.ctrlKey ? 4 * lines : lines)), this.#at(event));
    }, { passive: false });
    picture.addEventListener("dblclick", () => (this.fitted ? this.actual() : this.fit()));
    picture.addEventListener("pointerdown", event => {
      picture.setPointerCapture(event.pointerId);
      picture.classList.add("dragged");
      this.touches.set(event.pointerId, event);
    });
    picture.addEventListener("pointermove", event => this.#move(event));
    picture.addEventListener("pointerleave", () => this.pointed(null));
    for (const name of ["pointerup", "pointercancel"]) {
      picture.addEventListener(name, event => {
        this.touches.delete(event.pointerId);
        picture.classList.remove("dragged");
      });
    }
  }

  #move(event) {
    const before = this.touches.get(event.pointerId);
    const at = this.#at(event);
    if (!before) return this.pointed(at);
    const other = [...this.touches.values()].find(touch => touch.pointerId !== event.pointerId);
    if (other) {
      const far = touch => Math.hypot(touch.clientX - other.clientX, touch.clientY - other.clientY);
      const ratio = far(event) / Math.max(1, far(before));
      this.zoomBy(Math.log(ratio) / Math.log(STEP), at);
    } else {
      this.x -= (event.clientX - before.clientX) / this.zoom;
      this.y -= (event.clientY - before.clientY) / this.zoom;
      this.fitted = false;
      this.#draw();
    }
    this.touches.set(event.pointerId, event);
    this.pointed(at);
  }
}
