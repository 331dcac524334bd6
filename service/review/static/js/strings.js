// The strings of the page, in its language; the server writes them into the page.
const found = JSON.parse(document.getElementById("strings").textContent);

/** The text of a key, with {name} replaced by values.name. */
export function t(key, values = {}) {
  const text = found[key];
  if (text === undefined) throw new Error(`no string ${key}`);
  return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? values[name] : whole));
}

const language = document.documentElement.lang;

/** A number as the language writes it. */
export function number(value, digits = 2) {
  return value.toLocaleString(language, { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

/** A share as percent, with more digits where it is small. */
export function share(value) {
  const digits = value < 0.00005 || value > 0.99995 ? 0 : value < 0.0995 ? 2 : 1;
  return `${number(100 * value, digits)} %`;
}
