// Which inspections come one after another: the review queue, or the list the person came from.
import { call } from "./api.js";

const LISTED = "inlier-listed";
const AHEAD = 5;
const PORTION = 40;

/** Remember the ids of a list of inspections, so that the keys go through it. */
export function rememberList(ids) {
  sessionStorage.setItem(LISTED, JSON.stringify(ids));
}

export class Trail {
  constructor(id) {
    const query = new URLSearchParams(location.search);
    this.queue = query.get("in") === "review";
    this.search = location.search;
    query.delete("in");
    this.filters = query;
    const listed = this.queue ? [] : JSON.parse(sessionStorage.getItem(LISTED) ?? "[]");
    this.ids = listed.includes(id) ? listed : [id];
    this.at = this.ids.indexOf(id);
    this.open = null;
    this.skipped = new Set();
  }

  get current() {
    return this.ids[this.at];
  }

  peek(step = 1) {
    return this.ids[this.at + step];
  }

  go(step) {
    this.at += step;
  }

  /** Go to an id, which is put behind the current one if it is not on the trail. */
  jump(id) {
    if (!this.ids.includes(id)) this.ids.splice(this.at + 1, 0, id);
    this.at = this.ids.indexOf(id);
  }

  /** Leave out what another person has claimed. */
  drop(id) {
    const at = this.ids.indexOf(id);
    this.skipped.add(id);
    if (at > this.at) this.ids.splice(at, 1);
  }

  /** Let the queue tell what comes next; what was seen stays where it is. */
  async fill() {
    if (!this.queue || this.ids.length - this.at > AHEAD) return;
    const query = new URLSearchParams(this.filters);
    query.set("limit", String(PORTION + this.skipped.size));
    const { items, open } = await call("GET", `/v1/review-queue?${query}`);
    this.open = open;
    const known = new Set([...this.ids, ...this.skipped]);
    this.ids.push(...items.map(item => item.id).filter(id => !known.has(id)));
  }

  address(id) {
    return `/inspections/${id}${this.search}`;
  }
}
