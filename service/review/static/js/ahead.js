// The pages of inspections that come next, fetched and with their pictures decoded before they are asked for.
import { request } from "./api.js";

const KEPT = 6;

export class Ahead {
  #known = new Map();

  /** A promise of the page's #desk element with its pictures decoded. */
  get(address) {
    let found = this.#known.get(address);
    if (!found) {
      found = this.#read(address);
      this.#known.set(address, found);
      found.catch(() => this.#known.delete(address));
      while (this.#known.size > KEPT) this.#known.delete(this.#known.keys().next().value);
    }
    return found;
  }

  forget(address) {
    this.#known.delete(address);
  }

  async #read(address) {
    const response = await request("GET", address, undefined, { headers: { Accept: "text/html" } });
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    const desk = page.getElementById("desk");
    if (!desk || response.redirected) throw new Error(`no inspection at ${address}`);
    const adopted = document.adoptNode(desk);
    const pictures = [...adopted.querySelectorAll("svg image")].map(async element => {
      const picture = new Image();
      picture.src = element.getAttribute("href");
      await picture.decode();
      return picture;
    });
    // Held, so that neither picture nor its pixels are thrown away before they are shown.
    adopted.held = (await Promise.allSettled(pictures)).map(result => result.value);
    return { desk: adopted, title: page.title };
  }
}
