// A pair, two questions, the next pair. The state is one object; everything else is read off it.

const QUESTIONS = [
  ["follows", "Which follows the words better?"],
  ["prettier", "Which is prettier, whatever the words?"],
];
const KEYS = { ArrowLeft: "left", 1: "left", ArrowDown: "same", 0: "same", ArrowRight: "right", 2: "right" };

const at = (id) => document.getElementById(id);
const buttons = [...document.querySelectorAll("[data-answer]")];
const state = { pair: null, answers: [], since: 0, isBusy: true, showsResults: false };
window.arena = state;

const voter = () => at("voter").value.trim();

async function ask(path, options) {
  const response = await fetch(path, options);
  const said = await response.json();
  if (!response.ok) throw new Error(said.error);
  return said;
}

function show() {
  const { pair, answers, isBusy, showsResults } = state;
  at("prompt").textContent = pair?.prompt ?? "";
  at("question").textContent = isBusy || showsResults ? "" : QUESTIONS[answers.length][1];
  for (const button of buttons) button.disabled = isBusy || showsResults;
  if (pair) {
    at("progress").max = pair.wanted;
    at("progress").value = Math.min(pair.done, pair.wanted);
    at("count").textContent = `${pair.done} of ${pair.wanted}`;
  }
}

function tell(text) {
  at("note").hidden = !text;
  at("note").textContent = text;
}

async function next() {
  state.isBusy = true;
  state.answers = [];
  show();
  state.pair = await ask(`pair?voter=${encodeURIComponent(voter())}`);
  if (state.pair.done >= state.pair.wanted) return finish();
  const sides = ["left", "right"].map((side) => {
    at(side).src = `pair/${state.pair.pair}/${side}`;
    return at(side).decode();
  });
  // Both at once: who is there first says nothing.
  for (const side of ["left", "right"]) at(side).style.visibility = "hidden";
  await Promise.all(sides);
  for (const side of ["left", "right"]) at(side).style.visibility = "";
  state.since = performance.now();
  state.isBusy = false;
  show();
}

async function answer(side) {
  if (state.isBusy || state.showsResults) return;
  tell("");
  state.answers.push(side);
  if (state.answers.length < QUESTIONS.length) return show();
  state.isBusy = true;
  show();
  const answers = Object.fromEntries(QUESTIONS.map(([name], i) => [name, state.answers[i]]));
  const vote = { pair: state.pair.pair, voter: voter(), took_ms: Math.round(performance.now() - state.since), ...answers };
  await ask("vote", { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(vote) });
  await next();
}

async function finish() {
  state.showsResults = true;
  for (const part of document.querySelectorAll(".pair, .answers, .hint")) part.hidden = true;
  show();
  at("prompt").textContent = "Thank you: that was all.";
  const results = await ask("results");
  const points = (rating) => (rating ? `${rating.points.toFixed(0)} (${rating.low.toFixed(0)} to ${rating.high.toFixed(0)})` : "–");
  const rows = [["", "follows the words: Elo", "Bradley-Terry", "prettier: Elo", "Bradley-Terry"]];
  results.models.forEach((name, i) => {
    const of = ({ elo, bradley_terry: found }) => [points(elo[i]), points(found?.ratings[i])];
    rows.push([name, ...of(results.follows), ...of(results.prettier)]);
  });
  at("results").replaceChildren(
    ...rows.map((cells, i) => {
      const row = document.createElement("tr");
      row.append(...cells.map((text) => Object.assign(document.createElement(i ? "td" : "th"), { textContent: text })));
      return row;
    }),
  );
  const { same_picture: [shown, same], sides: [left, right] } = results.check;
  tell(`Of ${shown} answers about the same picture twice ${same} saw no difference; ${left} answers chose left, ${right} right.`);
  at("results").hidden = at("exports").hidden = false;
}

const orTell = (work) => work.catch((error) => tell(`${error.message} Reload the page to go on.`));

for (const button of buttons) button.addEventListener("click", () => orTell(answer(button.dataset.answer)));
addEventListener("keydown", (event) => {
  if (event.target === at("voter") || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Backspace" && !state.isBusy) {
    state.answers.pop();
    show();
  } else if (KEYS[event.key]) {
    event.preventDefault();
    orTell(answer(KEYS[event.key]));
  }
});
at("voter").value = localStorage.getItem("voter") ?? "";
at("voter").addEventListener("change", () => {
  localStorage.setItem("voter", voter());
  at("voter").blur();
  orTell(next());
});
orTell(next());
