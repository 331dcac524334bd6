// A list of inspections: whoever opens one goes on through the list with the keys.
import "./filters.js";
import { rememberList } from "./trail.js";

const cards = [...document.querySelectorAll("a.card")];
rememberList(cards.map(card => new URL(card.href).pathname.split("/").at(-1)));
