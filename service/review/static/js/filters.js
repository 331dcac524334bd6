// Filters by time: typed in the reader's zone, sent in UTC; and no empty field in the address.
const form = document.querySelector("form.filters");
const times = form.querySelectorAll('[type="datetime-local"]');

/** A moment as the field writes it, in the reader's zone. */
const local = moment => new Date(moment - moment.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);

for (const field of times) {
  if (field.value) field.value = local(new Date(`${field.value}Z`)); // the server wrote UTC
}

form.addEventListener("formdata", ({ formData }) => {
  for (const field of times) {
    if (field.value) formData.set(field.name, new Date(field.value).toISOString());
  }
  for (const [name, value] of [...formData]) {
    if (!value.trim()) formData.delete(name);
  }
});

for (const button of form.querySelectorAll("[data-hours]")) {
  button.addEventListener("click", () => {
    form.elements.since.value = local(new Date(Date.now() - 3_600_000 * button.dataset.hours));
    form.elements.until.value = "";
    form.requestSubmit();
  });
}
