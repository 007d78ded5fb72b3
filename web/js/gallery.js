// The gallery: every picture that stood, kept in this browser. Found by its words, marked, compared, saved, deleted.

import { button, byId, download, html, input, make, mark, slug, style, why } from "./dom.js";
import { note } from "./notice.js";
import { Shelf } from "./shelf.js";
import { zip } from "./zip.js";

/** @import { Kept } from "./shelf.js" */
/** @import { Settings } from "./types.js" */

export class Gallery {
  #dialog = byId("gallery", HTMLDialogElement);
  #search = input("gallery-search");
  #favourites = button("gallery-favourites");
  #compare = button("gallery-compare");
  #save = button("gallery-save");
  #delete = button("gallery-delete");
  #restore = button("gallery-restore");
  #grid = html("gallery-grid");
  #pair = html("gallery-pair");
  #split = input("gallery-split");
  #shelf = new Shelf();
  /** @type {Kept[]} */
  #all = [];
  /** @type {Set<number>} chosen, in the order in which they were */
  #chosen = new Set();
  /** @type {Kept[]} what was deleted last */
  #deleted = [];
  /** @type {string[]} addresses of what is shown */
  #urls = [];
  #open;
  #failed;

  /**
   * @param {(settings: Settings) => void} open brings a picture's settings back
   * @param {(message: string, hint: string) => void} failed
   */
  constructor(open, failed) {
    this.#open = open;
    this.#failed = failed;
    button("gallery-open").addEventListener("click", () => this.show());
    this.#search.addEventListener("input", () => this.#list());
    this.#favourites.addEventListener("click", () => {
      mark(this.#favourites, "aria-pressed", this.#favourites.getAttribute("aria-pressed") !== "true");
      this.#list();
    });
    this.#compare.addEventListener("click", () => this.#beside());
    this.#save.addEventListener("click", () => void this.#try(() => this.#download()));
    this.#delete.addEventListener("click", () => void this.#try(() => this.#remove()));
    this.#restore.addEventListener("click", () => void this.#try(() => this.#bringBack()));
    button("gallery-back").addEventListener("click", () => this.#list());
    this.#split.addEventListener("input", () => style(this.#pair, { split: `${this.#split.value}%` }));
    this.#dialog.addEventListener("close", () => this.#forget());
  }

  get isOpen() {
    return this.#dialog.open;
  }

  /**
   * Keeps a picture for good.
   * @param {Settings} settings
   * @param {Blob} blob
   * @param {string} model
   */
  async keep(settings, blob, model) {
    await this.#try(() => this.#shelf.add({ at_ms: Date.now(), settings, model, blob, favourite: false }));
  }

  async show() {
    if (this.#dialog.open) return;
    this.#search.value = "";
    this.#chosen.clear();
    mark(this.#favourites, "aria-pressed", false);
    this.#dialog.showModal();
    await this.#try(() => this.#read());
  }

  /** @param {() => Promise<void>} work */
  async #try(work) {
    try {
      await work();
    } catch (reason) {
      this.#failed("The gallery could not be used.", `${why(reason)} Pictures of this session are in the strip all the same.`);
    }
  }

  async #read() {
    this.#all = await this.#shelf.all();
    this.#list();
  }

  #forget() {
    for (const url of this.#urls.splice(0)) URL.revokeObjectURL(url);
    this.#grid.replaceChildren();
    this.#pair.replaceChildren();
    this.#all = [];
    this.#deleted = [];
  }

  /** Pictures whose words hold all that are looked for. */
  #found() {
    const parts = this.#search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const only = this.#favourites.getAttribute("aria-pressed") === "true";
    return this.#all.filter(({ settings, model, favourite }) => {
      const text = `${settings.prompt} ${settings.negative_prompt} ${model} seed:${settings.seed}`.toLowerCase();
      return (favourite || !only) && parts.every((part) => text.includes(part));
    });
  }

  #list() {
    for (const url of this.#urls.splice(0)) URL.revokeObjectURL(url);
    this.#showPair(false);
    const found = this.#found();
    const none = this.#all.length === 0 ? "Nothing yet: a picture that has stood for a moment is kept here." : "No picture has these words.";
    html("gallery-none").textContent = none;
    html("gallery-none").hidden = found.length > 0;
    html("gallery-count").textContent = found.length === this.#all.length ? `${found.length}` : `${found.length} of ${this.#all.length}`;
    this.#grid.replaceChildren(...found.map((kept) => this.#card(kept)));
    this.#offer();
  }

  /** @param {Kept} kept */
  #url(kept) {
    const url = URL.createObjectURL(kept.blob);
    this.#urls.push(url);
    return url;
  }

  /** @param {Kept} kept */
  #card(kept) {
    const { settings } = kept;
    const words = settings.prompt || "no words";
    const when = new Date(kept.at_ms).toLocaleString();
    const open = make("button", { type: "button", className: "shown", title: `${words}\nseed ${settings.seed}, ${kept.model}\n${when}`, "aria-label": `Open: ${words}, seed ${settings.seed}` });
    open.append(make("img", { src: this.#url(kept), alt: "", loading: "lazy", decoding: "async" }));
    open.addEventListener("click", () => {
      this.#dialog.close();
      this.#open(settings);
    });
    const star = make("button", { type: "button", className: "quiet star", "aria-label": `Favourite: ${words}`, "aria-pressed": kept.favourite }, "★");
    star.addEventListener("click", () => void this.#try(() => this.#star(kept, star)));
    const choose = make("input", { type: "checkbox", checked: this.#chosen.has(kept.id), "aria-label": `Choose: ${words}` });
    choose.addEventListener("change", () => {
      if (choose.checked) this.#chosen.add(kept.id);
      else this.#chosen.delete(kept.id);
      this.#offer();
    });
    return make("li", {}, open, star, choose, make("p", {}, words));
  }

  /**
   * @param {Kept} kept
   * @param {HTMLButtonElement} star
   */
  async #star(kept, star) {
    kept.favourite = !kept.favourite;
    mark(star, "aria-pressed", kept.favourite);
    await this.#shelf.put(kept);
  }

  #chosenOnes() {
    return [...this.#chosen].flatMap((id) => this.#all.filter((kept) => kept.id === id));
  }

  #offer() {
    const count = this.#chosenOnes().length;
    this.#compare.disabled = count !== 2;
    this.#compare.title = count === 2 ? "" : "Choose two pictures";
    this.#delete.disabled = count === 0;
    this.#save.disabled = this.#all.length === 0;
    this.#save.textContent = count > 0 ? `Save ${count}` : "Save all";
    this.#restore.hidden = this.#deleted.length === 0;
  }

  #beside() {
    const [a, b] = this.#chosenOnes();
    if (!a || !b) return;
    /** @param {Kept} kept */
    const side = (kept) => make("img", { src: this.#url(kept), alt: `${kept.settings.prompt}, seed ${kept.settings.seed}` });
    this.#pair.replaceChildren(side(a), side(b));
    html("gallery-left").textContent = `${a.settings.prompt}, seed ${a.settings.seed}`;
    html("gallery-right").textContent = `${b.settings.prompt}, seed ${b.settings.seed}`;
    this.#split.value = "50";
    style(this.#pair, { split: "50%" });
    this.#showPair(true);
    this.#split.focus();
  }

  /** @param {boolean} on */
  #showPair(on) {
    html("gallery-beside").hidden = !on;
    html("gallery-list").hidden = on;
  }

  async #download() {
    const chosen = this.#chosenOnes();
    const files = (chosen.length > 0 ? chosen : this.#found()).map(({ id, settings, blob, at_ms }) => ({ name: `${slug(settings.prompt)}-${settings.seed}-${id}.png`, blob, at_ms }));
    const [only] = files;
    if (!only) return;
    const name = files.length === 1 ? only.name : "prima-pictures.zip";
    download(files.length === 1 ? only.blob : await zip(files), name);
    note(`Saved ${name}`);
  }

  async #remove() {
    this.#deleted = this.#chosenOnes();
    await this.#shelf.remove(this.#deleted.map((kept) => kept.id));
    this.#chosen.clear();
    await this.#read();
  }

  async #bringBack() {
    for (const kept of this.#deleted.splice(0)) await this.#shelf.put(kept);
    await this.#read();
  }
}
