// The pictures that last: kept by the browser itself (IndexedDB), on this machine alone.

import { same } from "./state.js";

/** @import { Settings } from "./types.js" */

/** @typedef {{id: number, at_ms: number, settings: Settings, model: string, blob: Blob, favourite: boolean}} Kept */

const DATABASE = "prima";
const STORE = "pictures";
/** Beyond this the oldest leave that are nobody's favourite. */
const MOST = 600;

export class Shelf {
  /** @type {Promise<IDBDatabase> | null} */
  #database = null;

  #open() {
    this.#database ??= new Promise((resolve, reject) => {
      const request = indexedDB.open(DATABASE, 1);
      request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: "id", autoIncrement: true });
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => reject(request.error);
      request.onblocked = () => reject(new Error("Another tab holds the gallery in an older version."));
    });
    return this.#database;
  }

  /**
   * One transaction.
   * @template T
   * @param {IDBTransactionMode} mode
   * @param {(store: IDBObjectStore) => IDBRequest<T>} ask
   * @returns {Promise<T>} once it is on the disk
   */
  async #with(mode, ask) {
    const database = await this.#open();
    return new Promise((resolve, reject) => {
      const transaction = database.transaction(STORE, mode);
      const request = ask(transaction.objectStore(STORE));
      transaction.oncomplete = () => resolve(request.result);
      transaction.onabort = () => reject(transaction.error ?? request.error);
    });
  }

  /** @returns {Promise<Kept[]>} the newest first */
  async all() {
    const all = /** @type {Kept[]} */ (await this.#with("readonly", (store) => store.getAll()));
    return all.reverse();
  }

  /** @param {Omit<Kept, "id">} picture passed over where it is there already */
  async add(picture) {
    const { settings, model, blob } = picture;
    const before = await this.all();
    if (before.some((kept) => same(kept.settings, settings) && kept.model === model && kept.blob.size === blob.size)) return;
    const id = /** @type {number} */ (await this.#with("readwrite", (store) => store.add(picture)));
    const rest = [id, ...before.filter((kept) => !kept.favourite).map((kept) => kept.id)];
    const tooMany = before.length + 1 - MOST;
    if (tooMany > 0) await this.remove(rest.slice(-tooMany));
  }

  /** @param {Kept} picture as it is now */
  async put(picture) {
    await this.#with("readwrite", (store) => store.put(picture));
  }

  /** @param {number[]} ids */
  async remove(ids) {
    if (ids.length === 0) return;
    await this.#with("readwrite", (store) => {
      const last = ids.map((id) => store.delete(id)).at(-1);
      if (!last) throw new Error("nothing to remove");
      return last;
    });
  }
}
