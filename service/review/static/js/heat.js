// The anomaly map over the image: on and off, how opaque, and its value under the pointer.
const SHOWN = "inlier-heat";
const OPACITY = "inlier-opacity";

export class Heat {
  constructor(desk) {
    this.desk = desk;
    this.overlay = desk.querySelector("image.heat");
    this.button = desk.querySelector('[data-do="heat"]');
    this.slider = desk.querySelector("#opacity");
    if (!this.overlay) return;
    this.slider.value = localStorage.getItem(OPACITY) ?? "0.6";
    this.slider.addEventListener("input", () => {
      localStorage.setItem(OPACITY, this.slider.value);
      this.#show(true);
    });
    this.#show(localStorage.getItem(SHOWN) !== "no");
  }

  toggle() {
    if (this.overlay) this.#show(this.button.ariaPressed !== "true");
  }

  #show(shown) {
    localStorage.setItem(SHOWN, shown ? "yes" : "no");
    this.button.ariaPressed = String(shown);
    this.overlay.setAttribute("opacity", shown ? this.slider.value : "0");
  }

  /** The map's value at a pixel of the image, or null; the map is fetched when it is first asked for. */
  async value(x, y) {
    if (!this.desk.dataset.map) return null;
    this.counts ??= this.#read();
    const { data, width, height } = await this.counts;
    const column = Math.floor((x / Number(this.desk.dataset.width)) * width);
    const line = Math.floor((y / Number(this.desk.dataset.height)) * height);
    if (column < 0 || line < 0 || column >= width || line >= height) return null;
    const at = 4 * (line * width + column);
    return (256 * data[at] + data[at + 1]) * Number(this.desk.dataset.scale);
  }

  async #read() {
    const response = await fetch(this.desk.dataset.map);
    const options = { colorSpaceConversion: "none", premultiplyAlpha: "none" };
    const bitmap = await createImageBitmap(await response.blob(), options);
    const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
    const context = canvas.getContext("2d");
    context.drawImage(bitmap, 0, 0);
    return context.getImageData(0, 0, bitmap.width, bitmap.height);
  }
}
