// The film of a reconstruction: frames on two canvases, a scrubber, and a projector that runs when it may.
import { number, t } from "./strings.js";

const FRAME_MS = 170;
const LAST_MS = 900; // on the frame where noising ends, so that the eye sees the turn
const still = matchMedia("(prefers-reduced-motion: reduce)");

/** Base64 -> a blob, of what the service sends as text. */
export function blob(text, type = "image/png") {
  return new Blob([Uint8Array.from(atob(text), char => char.charCodeAt(0))], { type });
}

export class Film {
  constructor(root) {
    this.screens = Object.fromEntries([...root.querySelectorAll("[data-screen]")].map(screen => [screen.dataset.screen, screen]));
    this.scrub = root.querySelector("#scrub");
    this.button = root.querySelector('[data-do="play"]');
    this.phase = root.querySelector("#phase");
    this.idle = root.querySelector(".idle");
    this.timestep = root.querySelector("[data-t]");
    this.scrub.addEventListener("input", () => {
      this.pause();
      this.follows = false;
      this.#draw(Number(this.scrub.value));
    });
    this.button.addEventListener("click", () => this.toggle());
    this.begin("", 0);
  }

  /** A new film, of a profile's kind with so many steps. */
  begin(kind, steps) {
    this.pause();
    for (const frame of this.frames ?? []) [frame.noisy, frame.clean].forEach(picture => picture?.close());
    Object.assign(this, { kind, steps, frames: [], follows: true });
    for (const screen of Object.values(this.screens)) screen.width = screen.height = 1;
    this.phase.textContent = "\u00a0";
    this.timestep.textContent = "";
    this.idle.hidden = true;
    this.scrub.max = this.scrub.value = "0";
    this.scrub.disabled = this.button.disabled = true;
  }

  /** The next frame; it is shown as soon as it is there, until somebody takes the scrubber. */
  async add({ phase, t: timestep, number: step, noisy, clean }) {
    const [left, right] = await Promise.all([noisy, clean].map(text => text && createImageBitmap(blob(text))));
    this.frames.push({ phase, timestep, step, noisy: left, clean: right });
    this.scrub.max = String(this.frames.length - 1);
    this.scrub.disabled = this.button.disabled = this.frames.length < 2;
    if (this.follows) this.show(this.frames.length - 1);
  }

  /** Nothing more comes: run once from the beginning, where movement is welcome. */
  end() {
    if (this.follows && !still.matches && this.frames.length > 1) this.play(0);
  }

  show(index) {
    this.scrub.value = String(Math.min(this.frames.length - 1, Math.max(0, index)));
    this.#draw(Number(this.scrub.value));
  }

  step(by) {
    this.pause();
    this.follows = false;
    if (this.frames.length) this.show(Number(this.scrub.value) + by);
  }

  toggle() {
    if (this.timer) return this.pause();
    const at = Number(this.scrub.value);
    this.play(at >= this.frames.length - 1 ? 0 : at);
  }

  play(from) {
    this.pause();
    if (this.frames.length < 2) return;
    this.button.ariaPressed = "true";
    this.show(from);
    const turn = () => {
      const at = Number(this.scrub.value) + 1;
      if (at >= this.frames.length) return this.pause();
      this.show(at);
      this.timer = setTimeout(turn, this.#lasts(at));
    };
    this.timer = setTimeout(turn, this.#lasts(from));
  }

  pause() {
    clearTimeout(this.timer);
    this.timer = null;
    this.button.ariaPressed = "false";
  }

  #lasts(at) {
    const turns = this.frames[at]?.phase === "noising" && this.frames[at + 1]?.phase !== "noising";
    // A few frames are looked at one by one, many run.
    return turns || this.frames.length < 8 ? LAST_MS : FRAME_MS;
  }

  #draw(at) {
    const frame = this.frames[at];
    for (const [name, screen] of Object.entries(this.screens)) {
      const picture = frame[name];
      if (picture && (screen.width !== picture.width || screen.height !== picture.height)) {
        [screen.width, screen.height] = [picture.width, picture.height];
      }
      const context = screen.getContext("2d");
      if (picture) context.drawImage(picture, 0, 0);
      else context.clearRect(0, 0, screen.width, screen.height);
    }
    this.idle.hidden = Boolean(frame.clean);
    const words = { t: number(frame.timestep, 0), number: frame.step, steps: this.steps };
    this.timestep.textContent = t("try.timestep", words);
    this.phase.textContent = t(this.#phase(frame), words);
    this.scrub.ariaValueText = `${t("try.timestep", words)}, ${this.phase.textContent}`;
  }

  #phase({ phase }) {
    if (phase !== "denoising" || this.kind === "chain") return `try.${phase}`;
    return this.kind === "one_step" ? "try.estimate" : "try.asked";
  }
}
