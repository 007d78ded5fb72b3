// A prompt as words: weights as A1111 writes them, `(word:1.3)`, and other words that would fit in a word's place.

/**
 * @typedef {object} Word
 * @property {string} text without parentheses and weight
 * @property {number} start of the whole, parentheses included (UTF-16 units)
 * @property {number} end
 * @property {number} textStart of the text alone
 * @property {number} weight
 */

const PATTERN = /\(((?:\\.|[^()\\])*?)\s*:\s*(\d+(?:\.\d*)?|\.\d+)\s*\)|(?:\\.|[^\s,;()\\])+/gu;

/**
 * @param {string} prompt
 * @returns {Word[]}
 */
export function words(prompt) {
  return Array.from(prompt.matchAll(PATTERN), (match) => {
    const group = match[1];
    const text = group ?? match[0];
    const lead = group === undefined ? 0 : 1 + (group.length - group.trimStart().length);
    return {
      text: text.trim(),
      start: match.index,
      end: match.index + match[0].length,
      textStart: match.index + lead,
      weight: match[2] === undefined ? 1 : Number(match[2]),
    };
  }).filter((word) => word.text !== "");
}

/** Words that carry no picture: shown, but quieter. */
const PLAIN = new Set("a an the of on in at with and to by for is from some".split(" "));

/** @param {string} text */
export const isPlain = (text) => PLAIN.has(text.toLowerCase());

/**
 * @param {string} prompt
 * @param {Word} word
 * @param {number} weight
 */
export function withWeight(prompt, word, weight) {
  const rounded = Math.round(Math.min(Math.max(weight, 0), 2) * 100) / 100;
  const written = rounded === 1 ? word.text : `(${word.text}:${rounded})`;
  return prompt.slice(0, word.start) + written + prompt.slice(word.end);
}

/**
 * Another word in the same place, with the same weight; "a" and "an" before it follow.
 * @param {string} prompt
 * @param {Word} word
 * @param {string} other
 */
export function withOther(prompt, word, other) {
  const written = word.weight === 1 ? other : `(${other}:${word.weight})`;
  const before = prompt.slice(0, word.start).replace(/\b(a|an)(\s+)$/i, (_, article, space) => {
    const an = /^[aeiou]/i.test(other) ? "an" : "a";
    return (article[0] === "A" ? an[0]?.toUpperCase() + an.slice(1) : an) + space;
  });
  return before + written + prompt.slice(word.end);
}

/** Words that stand for each other. The first group that has the word decides. */
const GROUPS = [
  "red orange yellow green blue purple pink brown black white grey beige",
  "apple banana strawberry lemon pear peach cherries grapes watermelon pineapple tomato carrot",
  "cat dog fox bear panda tiger lion rabbit mouse cow pig horse monkey elephant owl penguin frog",
  "fish whale dolphin octopus turtle crab shark snail",
  "butterfly bee ladybug spider ant bird chick duck eagle",
  "flower rose tulip sunflower tree cactus mushroom leaf clover",
  "car taxi bus truck bicycle train boat ship airplane rocket helicopter",
  "house castle tent church hospital school factory mountain",
  "sun moon star cloud rainbow snowflake fire lightning umbrella",
  "pizza hamburger cake cookie doughnut bread cheese egg sushi popcorn lollipop",
  "guitar piano violin trumpet drum microphone bell",
  "book pencil key lamp clock camera phone computer television balloon gift heart crown hat",
  "flat cartoon watercolour photo sketch",
  "light dark bright pale",
  "small big tiny huge",
].map((line) => line.split(" "));

/**
 * @param {string} text
 * @param {number} most
 * @returns {string[]} other words for its place; none for a word that no group has
 */
export function alternatives(text, most) {
  const lower = text.toLowerCase();
  const group = GROUPS.find((words) => words.includes(lower));
  return group ? group.filter((word) => word !== lower).slice(0, most) : [];
}
