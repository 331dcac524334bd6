// The theme changes without a reload; the cookie lets the server paint the next page right at once.
const YEAR_S = 365 * 24 * 3600;

export function themeButtons(root = document) {
  const buttons = [...root.querySelectorAll('button[name="theme"]')];
  for (const button of buttons) {
    button.addEventListener("click", event => {
      event.preventDefault();
      const html = document.documentElement;
      if (button.value === "auto") delete html.dataset.theme;
      else html.dataset.theme = button.value;
      document.cookie = `inlier-theme=${button.value}; path=/; max-age=${YEAR_S}; samesite=lax`;
      for (const other of buttons) other.ariaPressed = String(other === button);
    });
  }
}
