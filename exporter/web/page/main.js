// The main loop: polls the exporter every two seconds and shows when it does not answer.

import { attribute, byId, h, text } from "./dom.js";
import { Events } from "./events.js";
import * as format from "./format.js";
import * as model from "./model.js";
import { Groups, isView } from "./groups.js";
import { Panels } from "./panels.js";
import { Ranges } from "./ranges.js";
import { Replay } from "./replay.js";
import { Stages } from "./stages.js";
import { capital, drawStatus } from "./status.js";

const EVERY_S = 2;
const LONGEST_PAUSE_S = 30;
const ANSWER_S = 8;
const FROZEN_S = 15; // a snapshot older than this, by the exporter's own clock, is not current
const HISTORIES = ["recent", "hour"];

const state = {
  snapshot: null,
  histories: { recent: null, hour: null },
  fetchedAt: { recent: -Infinity, hour: -Infinity },
  received: 0, // performance.now() of the last answer, in seconds
  skew: 0, // the exporter's clock minus the snapshot's time, at the last answer
  failed: 0, // attempts in a row without an answer
  problem: "",
  nextTry: null,
  scope: null,
  groups: "", // the view of groups that is open
  search: "",
  outage: false,
};

const clock = () => performance.now() / 1000;

// Asking

class NoAnswer extends Error {}

async function ask(path) {
  let answer;
  try {
    answer = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(ANSWER_S * 1000) });
  } catch (error) {
    throw new NoAnswer(error.name === "TimeoutError" ? `no answer within ${ANSWER_S} s` : "no connection");
  }
  if (answer.status === 401) throw new NoAnswer("it requires a login: reload the page");
  if (!answer.ok) throw new NoAnswer(`it answered with status ${answer.status}`);
  try {
    return { body: await answer.json(), date: Date.parse(answer.headers.get("Date") ?? "") / 1000 };
  } catch {
    throw new NoAnswer("its answer was cut off or is not JSON");
  }
}

async function askAll() {
  const { body, date } = await ask(`api/v1/snapshot${replay.query()}`);
  // A history is requested again only after its sampling interval.
  for (const name of HISTORIES) {
    const known = state.histories[name];
    const restarted = state.snapshot && state.snapshot.started_at !== body.started_at;
    if (!known || restarted || replay.moved(body) || clock() - state.fetchedAt[name] >= known.interval * 0.9) {
      state.histories[name] = (await ask(`api/v1/history/${name}${replay.query()}`)).body;
      state.fetchedAt[name] = clock();
    }
  }
  await ranges.read(body, ask, clock);
  replay.seen(body);
  state.snapshot = body;
  state.skew = Number.isFinite(date) && !body.recording ? Math.max(date - body.taken_at, 0) : 0;
  state.received = clock();
}

let asking = false;
let timer = null;

async function turn() {
  clearTimeout(timer);
  if (asking || document.hidden) return; // a hidden page does not poll; it continues when shown
  asking = true;
  try {
    await askAll();
    state.failed = 0;
    state.problem = "";
  } catch (error) {
    if (!(error instanceof NoAnswer)) throw error;
    state.failed += 1;
    state.problem = error.message;
  } finally {
    asking = false;
    const pause = Math.min(EVERY_S * 2 ** Math.max(state.failed - 1, 0), LONGEST_PAUSE_S);
    state.nextTry = clock() + pause;
    timer = setTimeout(turn, pause * 1000);
    draw();
  }
}

// Drawing

const stages = new Stages();
const panels = new Panels({ choose: openPartition });
const events = new Events();
const ranges = new Ranges(() => {
  remember();
  turn();
});
const replay = new Replay(() => {
  remember();
  turn();
});
const groups = new Groups({ ask, choose: chooseGroups });

function view() {
  const { snapshot } = state;
  const now = snapshot.recording ? snapshot.recording.at : snapshot.taken_at + state.skew + (clock() - state.received);
  const frozen = state.skew > FROZEN_S;
  // After the page was hidden or the machine slept, nothing is current until the next answer.
  const connected = state.failed === 0 && !frozen && clock() - state.received < FROZEN_S;
  // Data that is not current is shown as unknown.
  const live = connected ? snapshot : { ...snapshot, up: false };
  const held = connected ? model.heldConditions(snapshot) : [];
  const histories = [state.histories.recent, state.histories.hour];
  return {
    snapshot: model.lastKnown(snapshot),
    live,
    now,
    frozen,
    connected,
    problem: state.problem,
    histories,
    history: ranges.drawn(snapshot, state.histories),
    scope: state.scope,
    lagsInScope: model.lags(live, state.scope),
    rates: model.currentRates(live, state.histories.recent, state.scope),
    storage: model.storage(live),
    held,
    problems: held.filter((one) => one.severity !== "notice"),
    notices: held.filter((one) => one.severity === "notice"),
    showGroups: (name) => chooseGroups({ groups: name, search: "", scope: null }, true),
    degraded: snapshot.up && model.heldConditions(snapshot).some((one) => one.degrades),
  };
}

function draw() {
  drawConnection();
  if (!state.snapshot) return;
  const scene = view();
  arrange(scene);
  drawStatus(scene);
  drawScope(scene);
  ranges.draw(scene.snapshot);
  replay.draw(scene.snapshot);
  events.draw(scene);
  stages.draw(scene);
  panels.draw(scene);
  groups.draw(scene, state);
  const { snapshot } = scene;
  byId("run").hidden = !snapshot.endpoint?.run;
  text(byId("run"), snapshot.endpoint?.run ? format.name(snapshot.endpoint.run) : "");
  const versions = Object.entries(snapshot.endpoint?.versions ?? {}).map(([what, version]) => `${what} ${version}`);
  const exporter = `tq-exporter ${snapshot.version}, up for ${format.span(Math.round(scene.now - snapshot.started_at))}`;
  text(byId("about"), [`Figures of ${format.date(snapshot.taken_at)}`, exporter, ...versions.map(format.visible)].join(" · "));
}

// In an outage what failed comes first: there is nothing to see further up. Moving an element takes its focus away.
function arrange({ snapshot }) {
  const outage = model.planeState(snapshot) !== "found";
  if (outage === state.outage) return;
  state.outage = outage;
  const focused = document.activeElement;
  byId(outage ? "controls" : "folded-panel").before(byId("troubles"));
  byId(outage ? "controls" : "troubles").before(byId("health"));
  if (focused !== document.activeElement) focused.focus({ preventScroll: true });
}

function drawConnection() {
  const frozen = state.snapshot && state.skew > FROZEN_S;
  const away = state.failed > 0;
  byId("unreachable").hidden = !away && !frozen;
  const recorded = Boolean(state.snapshot?.recording);
  attribute(document.body, "data-connection", away ? "away" : frozen ? "frozen" : recorded ? "replay" : "live");
  if (away) {
    const last = state.snapshot ? `Its last answer is ${format.span(Math.round(clock() - state.received))} old; every figure on this page is that old.` : "It has not answered yet.";
    const wait = Math.max(Math.ceil(state.nextTry - clock()), 0);
    text(byId("unreachable-title"), "This exporter does not answer");
    text(byId("unreachable-why"), `${capital(state.problem)}. ${last} Next try in ${wait} s.`);
  } else if (frozen) {
    text(byId("unreachable-title"), "This exporter has stopped polling");
    text(byId("unreachable-why"), `It answers, but its figures are ${format.span(Math.round(state.skew))} old.`);
  }
  attribute(byId("live"), "data-live", away || frozen || recorded ? "no" : "yes");
  text(byId("live"), away ? "Not updating" : frozen ? "Not polling" : recorded ? "Recording" : `Live, every ${EVERY_S} s`);
}

// Choices

let scopes = "";

function drawScope({ snapshot, scope }) {
  const names = [...new Set([...(scope === null ? [] : [scope]), ...model.partitionRows(snapshot).map((part) => part.partition)])].sort();
  const key = JSON.stringify([names, scope]);
  if (key === scopes) return;
  scopes = key;
  const options = [null, ...names].map((name) => {
    const option = h("option", {}, name === null ? "All partitions" : format.name(name));
    option.name = name;
    option.selected = name === scope;
    return option;
  });
  byId("scope").replaceChildren(...options);
}

// The choices are in the address, so that a link shows what its sender sees. Alerts link to their partition like this.
function recall() {
  const said = new URLSearchParams(window.location.search);
  state.scope = said.get("partition") || null;
  ranges.recall(said);
  replay.recall(said);
  state.groups = isView(said.get("groups") ?? "") ? said.get("groups") : "";
  state.search = said.get("search") ?? "";
}

function remember() {
  const said = new URLSearchParams();
  if (state.scope !== null) said.set("partition", state.scope);
  ranges.remember(said);
  replay.remember(said);
  if (state.groups) said.set("groups", state.groups);
  if (state.groups && state.search) said.set("search", state.search);
  const query = said.toString();
  window.history.replaceState(null, "", query ? `?${query}` : window.location.pathname);
}

function choose(name) {
  state.scope = name;
  remember();
  draw();
}

// In the table a partition opens into its groups.
function openPartition(name) {
  if (name !== null && !state.groups) state.groups = "oldest";
  choose(name);
}

function chooseGroups(chosen, show = false) {
  Object.assign(state, chosen);
  remember();
  draw();
  if (show) byId("groups-panel").scrollIntoView({ block: "start" });
}

byId("scope").addEventListener("change", (event) => choose(event.target.selectedOptions[0].name ?? null));

recall();

byId("retry").addEventListener("click", turn);
document.addEventListener("visibilitychange", turn);

const THEMES = ["auto", "light", "dark"];

function paint(theme) {
  attribute(document.documentElement, "data-theme", theme === "auto" ? null : theme);
  text(byId("theme"), `Theme: ${theme}`);
}

function storedTheme() {
  try {
    const stored = localStorage.getItem("theme");
    return THEMES.includes(stored) ? stored : "auto";
  } catch {
    return "auto"; // the browser forbids storage
  }
}

let theme = storedTheme();
byId("theme").addEventListener("click", () => {
  theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
  paint(theme);
  try {
    localStorage.setItem("theme", theme);
  } catch {
    return; // the choice lasts until the page is closed
  }
});

paint(theme);
setInterval(() => {
  if (!document.hidden && state.snapshot) draw();
  else if (!document.hidden) drawConnection();
}, 1000);
turn();
