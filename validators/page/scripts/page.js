// What all scripts share: the data, the pictures, and the theme. They are joined into one module.

const find = (selector, root = document) => root.querySelector(selector);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const data = JSON.parse(find("#data").textContent);

// Pictures lie in the page as text, so that the browser decodes only those that are shown.
const pictureOf = (number) => find(`#picture-${number}`).textContent;

const pressed = (button) => button.getAttribute("aria-pressed") === "true";
const press = (button, on) => button.setAttribute("aria-pressed", String(on));

function element(name, text = "", classes = "") {
  const made = document.createElement(name);
  made.textContent = text;
  if (classes) made.className = classes;
  return made;
}

// Theme: the system's, until the button is used.
{
  const button = find("#theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (document.documentElement.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
  const show = () => press(button, isDark());
  button.addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    show();
  });
  system.addEventListener("change", show);
  show();
}

// A link to a variant opens it.
function openTarget() {
  const target = location.hash.startsWith("#variant-") && find(location.hash);
  if (target) target.open = true;
}
addEventListener("hashchange", openTarget);
openTarget();
