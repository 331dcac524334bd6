// Times in the reader's own zone; the exact UTC stays in the title, where the server put it.
const language = document.documentElement.lang;
const full = new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "medium" });
const today = new Intl.DateTimeFormat(language, { timeStyle: "medium" });

/** Rewrite every <time> below an element. */
export function localTimes(root = document) {
  const day = new Date().toDateString();
  for (const element of root.querySelectorAll("time[datetime]")) {
    const moment = new Date(element.dateTime);
    const text = (moment.toDateString() === day ? today : full).format(moment);
    if (element.textContent !== text) element.textContent = text;
  }
}
