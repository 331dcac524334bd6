// Decisions on their way to the service: in order, kept in this browser until they arrived, taken back by undo.
import { call, Problem } from "./api.js";

const KEPT = "inlier-decisions";
const FIRST_RETRY_MS = 1000;
const LAST_RETRY_MS = 15000;

export class Outbox {
  /** me: the signed-in person; heard: {changed(count), lost(), arrived(), refused(entry, problem, reviews)}. */
  constructor(me, heard) {
    [this.me, this.heard] = [me, heard];
    this.key = `${KEPT}:${me}`;
    this.waiting = JSON.parse(localStorage.getItem(this.key) ?? "[]");
    this.sending = false;
    this.retryMs = 0;
    addEventListener("online", () => this.#soon(0));
    addEventListener("beforeunload", event => {
      if (this.waiting.length) event.preventDefault();
    });
    this.#keep();
    this.#send();
  }

  /** entry: {id, serial, decision, reason, comment, expected_revision} */
  add(entry) {
    this.waiting.push(entry);
    this.#keep();
    this.#send();
  }

  /** Drop the newest decision on an inspection that is not under way yet. -> whether there was one */
  drop(id) {
    const at = this.waiting.findLastIndex(entry => entry.id === id);
    if (at < 0 || (at === 0 && this.sending)) return false;
    this.waiting.splice(at, 1);
    this.#keep();
    return true;
  }

  #keep() {
    localStorage.setItem(this.key, JSON.stringify(this.waiting));
    this.heard.changed(this.waiting.length);
  }

  #soon(delayMs) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.#send(), delayMs);
  }

  async #send() {
    if (this.sending) return;
    this.sending = true;
    try {
      while (this.waiting.length) {
        await this.#one(this.waiting[0]);
        this.waiting.shift();
        this.#keep();
        if (this.retryMs) this.heard.arrived();
        this.retryMs = 0;
      }
    } catch {
      if (!this.retryMs) this.heard.lost();
      this.retryMs = Math.min(LAST_RETRY_MS, 2 * this.retryMs || FIRST_RETRY_MS);
      this.#soon(this.retryMs);
    } finally {
      this.sending = false;
    }
  }

  /** Throws where another attempt can help. */
  async #one(entry) {
    const { id, decision, reason, comment, expected_revision } = entry;
    const path = `/v1/inspections/${id}/reviews`;
    try {
      await call("POST", path, { decision, reason, comment, expected_revision });
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      if (error.status === 0 || error.status === 429 || error.status >= 500) throw error;
      if (error.status === 401 || error.status === 403) throw error; // signed out: kept until signed in again
      const reviews = error.status === 409 ? (await call("GET", path)).items : [];
      // The answer of an earlier attempt may have been lost, and then this conflict is with ourselves.
      const stored = reviews[expected_revision];
      if (stored?.who === this.me && stored.decision === decision) return;
      this.heard.refused(entry, error, reviews);
    }
  }
}
