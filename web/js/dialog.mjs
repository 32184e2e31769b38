// @ts-check
// A list with a search field over the page, and a line that tells something in a corner of it.

import { say } from "./words.mjs";

const STYLE = `
.fathom-dialog { padding: 12px; border: 1px solid var(--border-color, #4e4e4e); border-radius: 8px; max-width: min(720px, 90vw);
  background: var(--comfy-menu-bg, #353535); color: var(--input-text, #ddd); font: 13px/1.4 sans-serif; }
.fathom-dialog:not(:modal) { position: fixed; inset: auto 16px 16px auto; z-index: 3000; }
.fathom-dialog::backdrop { background: #0008; }
.fathom-dialog h2 { margin: 0 0 8px; font-size: 15px; }
.fathom-dialog input[type="search"] { width: 100%; box-sizing: border-box; margin-bottom: 8px; padding: 6px; border-radius: 4px;
  border: 1px solid var(--border-color, #4e4e4e); background: var(--comfy-input-bg, #222); color: inherit; font: inherit; }
.fathom-dialog ul { list-style: none; margin: 0; padding: 0; overflow: auto; max-height: 55vh; min-width: min(560px, 80vw); }
.fathom-dialog label { display: grid; grid-template-columns: auto 1fr; gap: 2px 8px; padding: 5px; cursor: pointer; }
.fathom-dialog label:hover, .fathom-dialog label:focus-within { background: var(--comfy-input-bg, #222); }
.fathom-dialog small { grid-column: 2; opacity: 0.8; }
.fathom-dialog footer { display: flex; justify-content: flex-end; gap: 6px; margin-top: 8px; flex-wrap: wrap; }
.fathom-dialog button, .fathom-dialog footer a { padding: 4px 12px; border: 1px solid var(--border-color, #4e4e4e);
  border-radius: 4px; background: var(--comfy-input-bg, #222); color: inherit; font: inherit; cursor: pointer; text-decoration: none; }
.fathom-dialog code { user-select: all; overflow-wrap: anywhere; }
`;

/** @typedef {{name: string, about?: string}} Entry */

/**
 * Open a dialog over the page; it closes with Escape, its button or `close`.
 * @param {string} title
 * @param {(Node | string)[]} content
 * @param {HTMLElement[]} buttons
 * @param {boolean} modal false = in a corner, while the page can be used
 */
export function openDialog(title, content, buttons = [], modal = true) {
  const dialog = document.createElement("dialog");
  dialog.className = "fathom-dialog";
  const style = document.createElement("style");
  style.textContent = STYLE;
  const head = document.createElement("h2");
  head.textContent = title;
  const foot = document.createElement("footer");
  foot.append(...buttons, button(say("close"), () => dialog.close()));
  dialog.append(style, head, ...content, foot);
  dialog.addEventListener("close", () => dialog.remove());
  // ComfyUI's shortcuts stay out of it.
  dialog.addEventListener("keydown", (event) => event.stopPropagation());
  document.body.append(dialog);
  if (modal) dialog.showModal();
  else dialog.show();
  return dialog;
}

/** @param {string} text @param {() => void} press */
export function button(text, press) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = text;
  made.addEventListener("click", press);
  return made;
}

/**
 * A list to choose from, one entry or several.
 * @param {string} title
 * @param {Entry[]} entries
 * @param {string[]} chosen
 * @param {boolean} several
 * @param {(names: string[]) => void} choose called with each change, in the order of choosing
 */
export function chooseFrom(title, entries, chosen, several, choose) {
  let names = [...chosen];
  const search = document.createElement("input");
  search.type = "search";
  search.placeholder = say("search");
  search.setAttribute("aria-label", say("search"));
  const list = document.createElement("ul");
  for (const { name, about } of entries) {
    const item = document.createElement("li");
    const label = document.createElement("label");
    const box = document.createElement("input");
    box.type = several ? "checkbox" : "radio";
    box.name = "fathom-choice";
    box.checked = names.includes(name);
    const told = document.createElement("small");
    told.textContent = about ?? "";
    label.append(box, name, told);
    item.append(label);
    item.dataset.words = `${name} ${about ?? ""}`.toLowerCase();
    box.addEventListener("change", () => {
      names = several ? names.filter((other) => other !== name).concat(box.checked ? [name] : []) : [name];
      choose(names);
      if (!several) dialog.close();
    });
    list.append(item);
  }
  search.addEventListener("input", () => {
    const words = search.value.toLowerCase().split(/\s+/);
    for (const item of /** @type {any} */ (list.children))
      item.hidden = !words.every((word) => item.dataset.words.includes(word));
  });
  const dialog = openDialog(title, [search, list]);
  search.focus();
}
