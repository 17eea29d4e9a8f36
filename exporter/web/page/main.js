// The main loop: polls the exporter every two seconds and shows when it does not answer.

import { attribute, byId, facts, h, keyed, path, s, text } from "./dom.js";
import * as format from "./format.js";
import * as model from "./model.js";
import { Panels } from "./panels.js";
import { Stages } from "./stages.js";

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
  window: "recent",
  said: null,
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
  const { body, date } = await ask("api/v1/snapshot");
  // A history is requested again only after its sampling interval.
  for (const name of HISTORIES) {
    const known = state.histories[name];
    const restarted = state.snapshot && state.snapshot.started_at !== body.started_at;
    if (!known || restarted || clock() - state.fetchedAt[name] >= known.interval * 0.9) {
      state.histories[name] = (await ask(`api/v1/history/${name}`)).body;
      state.fetchedAt[name] = clock();
    }
  }
  state.snapshot = body;
  state.skew = Number.isFinite(date) ? Math.max(date - body.taken_at, 0) : 0;
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
const panels = new Panels({ choose });

function view() {
  const { snapshot } = state;
  const now = snapshot.taken_at + state.skew + (clock() - state.received);
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
    histories,
    history: state.histories[state.window],
    scope: state.scope,
    lagsInScope: model.lags(live, state.scope),
    rates: model.currentRates(live, state.histories.recent, state.scope),
    storage: model.storage(live),
    held,
    problems: held.filter((one) => one.severity !== "notice"),
    notices: held.filter((one) => one.severity === "notice"),
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
  stages.draw(scene);
  panels.draw(scene);
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
  attribute(document.body, "data-connection", away ? "away" : frozen ? "frozen" : "live");
  if (away) {
    const last = state.snapshot ? `Its last answer is ${format.span(Math.round(clock() - state.received))} old; every figure on this page is that old.` : "It has not answered yet.";
    const wait = Math.max(Math.ceil(state.nextTry - clock()), 0);
    text(byId("unreachable-title"), "This exporter does not answer");
    text(byId("unreachable-why"), `${capital(state.problem)}. ${last} Next try in ${wait} s.`);
  } else if (frozen) {
    text(byId("unreachable-title"), "This exporter has stopped polling");
    text(byId("unreachable-why"), `It answers, but its figures are ${format.span(Math.round(state.skew))} old.`);
  }
  attribute(byId("live"), "data-live", away || frozen ? "no" : "yes");
  text(byId("live"), away ? "Not updating" : frozen ? "Not polling" : `Live, every ${EVERY_S} s`);
}

const capital = (words) => words && words[0].toUpperCase() + words.slice(1);

const LOOK_AT = { generation: "generation", training: "training", queue: "the queue", data_plane: "the data plane", exporter: "the exporter" };
const SEVERITY_WORDS = { critical: "critical", warning: "warning", notice: "note" };

function drawStatus({ snapshot, live, now, connected, frozen, held, problems, notices, degraded, histories }) {
  const plane = model.planeState(snapshot);
  const { word, tone } = model.STATES[degraded ? "degraded" : plane];
  const ping = model.source(snapshot, "ping");
  const lastGood = ping?.last_success ?? null;
  const change = histories.find(Boolean)?.changes.find((one, index) => index === 0 && one.state === plane);
  const since = change ? `since ${format.at(change.at, now)}, for ${format.span(Math.round(now - change.at))}` : "";
  const [first] = problems;
  const shownTone = connected ? (plane === "found" ? (model.TONES[model.worst(problems)] ?? "ok") : tone) : "bad";
  attribute(byId("status"), "data-tone", shownTone);
  const title = connected ? word : `${word} (last known)`;
  text(byId("state"), title);
  const noted = notices.map((one) => ` ${capital(one.text)}.`).join("");
  const sentence = {
    found: first ? `Check ${LOOK_AT[first.stage]}: ${first.text}.` : `${quietSentence(live)}${noted}`,
    silent: `The controller does not answer, ${since}.`,
    lost: `The data plane is gone, ${since}.`,
    ended: `The job ended on purpose, ${since}. The exporter keeps looking for the next one.`,
    never_found: `No data plane has answered since the exporter started, ${format.ago(now - snapshot.started_at)}.`,
    starting: `A controller is there and cannot be used yet, ${since}.`,
    unreachable: `The controller's address is known, but it has not answered yet, ${since}.`,
  }[plane];
  text(byId("verdict"), connected ? sentence : frozen ? "Its poll loop has stopped; restart the exporter." : "The current state is unknown: the exporter does not answer.");
  const details = { ping: ping?.detail, discovery: model.source(snapshot, "discovery")?.detail };
  const why = plane === "found" ? "" : (["ended", "never_found", "starting"].includes(plane) ? details.discovery || details.ping : details.ping || change?.detail || details.discovery) || "";
  byId("reason").hidden = !why;
  text(byId("reason"), why ? `Reason: ${format.visible(why)}` : "");
  byId("remedy").hidden = !first;
  path(byId("remedy"), first ? `What to do: ${first.remedy} More in ${first.runbook}.` : "");
  drawOthers(first ? held.filter((one) => one !== first) : [], now);
  const restarts = Math.max(snapshot.generation - 1, 0);
  const { controller } = model.processes(snapshot);
  const outside = (value) => (value ? format.visible(value) : null);
  facts(byId("facts"), [
    ["Last successful ping", lastGood === null ? "never" : `${format.at(lastGood, now)}, ${format.ago(now - lastGood)}`],
    ["Controller", outside(snapshot.endpoint?.address), "the address that it answers at"],
    ["Controller id", outside(snapshot.endpoint?.controller_id), "TransferQueue's id of it"],
    ["Actor id", outside(controller?.actor), "Ray's id of the controller's actor"],
    ["Node", outside(controller?.host), controller?.node ? `Ray's id of this node: ${controller.node}` : null],
    ["Process", controller?.pid ? String(controller.pid) : null, "the controller's process id on that node"],
    ["Restarts", snapshot.generation ? `${format.count(restarts)}` : null, "how often a new controller replaced the last one"],
    ["Backend", outside(snapshot.endpoint?.backend)],
    ["Partitions", live.up ? format.count(model.partitionRows(snapshot).length) : format.UNKNOWN],
  ]);
  drawTimeline(histories[0] && histories[state.window === "hour" ? 1 : 0], now);
  document.title = `${connected ? title : "No answer from the exporter"} · TransferQueue`;
  announce(connected, plane, degraded ? "degraded" : plane, sentence, first);
}

// The conditions after the first one, whose text is the headline's.
function drawOthers(conditions, now) {
  byId("others").hidden = !conditions.length;
  keyed(
    byId("others"),
    conditions,
    (one) => one.name,
    (one) =>
      h("li", {}, h("span", { class: "badge", "data-tone": one.severity === "notice" ? "idle" : model.TONES[one.severity] }, SEVERITY_WORDS[one.severity]),
        h("p", {}, h("span"), " ", h("span", { class: "note" }), " ", h("a", { href: `docs/metrics#${one.name}` }, one.name))),
    (item, one) => {
      const [said, note] = item.lastElementChild.children;
      text(said, `${capital(one.text)}.`);
      text(note, `${one.since === null ? "" : `Since ${format.at(one.since, now)}. `}What to do: ${one.remedy}`);
    },
  );
}

function quietSentence(live) {
  const held = model.occupancy(live, null);
  if (!held || !live.trained) return "TransferQueue answers; its partitions are not listed yet.";
  if (!held.total && !live.total_flow?.arrived) return "TransferQueue answers; it has no groups yet.";
  if (model.isHeld(live, "DataPlaneFlows")) return "Groups flow through generation, queue and training.";
  const train = live.role_flows.find((one) => one.role === "train");
  if (!train.arrived && !Object.values(train.departed).some(Boolean)) return "TransferQueue answers; no group has come or gone since the exporter started.";
  if (model.isKnown(live, "DataPlaneFlows")) return "TransferQueue answers; groups have not both come and gone within the usual time.";
  return "TransferQueue answers; groups have not come and gone often enough to tell whether they flow.";
}

// The live region announces changes of state, not of figures.
function announce(connected, plane, shown, sentence, first) {
  const now = connected ? `${shown} ${plane === "found" ? (first?.name ?? "") : ""}` : "away";
  if (state.said === now) return;
  state.said = now;
  text(byId("announcer"), connected ? `${model.STATES[shown].word}. ${sentence}` : `This exporter does not answer: ${state.problem}.`);
}

// Top and height in the strip: a fault is as high as the strip, so that it is seen without colours too.
const STRIP = { ok: [6, 8], idle: [10, 4], warn: [3, 11], bad: [0, 14] };
const SHORTEST = 2; // of 1000: a state of a second is still seen

function drawTimeline(history, now) {
  if (!history) return;
  const lengthS = history.interval * history.samples;
  const spans = [];
  history.at.forEach((at, index) => {
    const until = history.at[index + 1] ?? Math.min(now, at + 2.5 * history.interval);
    const to = Math.min(until, at + 2.5 * history.interval); // no sample: the exporter did not run, or was late
    const last = spans.at(-1);
    const here = model.stateAt(history, index);
    if (last?.state === here && at - last.to < 0.01) last.to = to;
    else spans.push({ state: here, from: at, to });
  });
  const x = (time) => Math.max(1000 * (1 - (now - time) / lengthS), 0);
  const svg = byId("timeline");
  keyed(
    svg,
    spans,
    (span) => `${span.state} ${Math.round(span.from)}`,
    () => s("rect", {}, s("title")),
    (rect, span) => {
      const { word, tone } = model.STATES[span.state];
      const [y, height] = STRIP[tone];
      for (const [key, value] of Object.entries({ "data-tone": tone, y, height })) attribute(rect, key, String(value));
      attribute(rect, "x", x(span.from).toFixed(2));
      attribute(rect, "width", Math.max(x(span.to) - x(span.from), SHORTEST).toFixed(2));
      text(rect.firstElementChild, `${word} from ${format.at(span.from, now)} to ${format.at(span.to, now)}, ${format.span(Math.round(span.to - span.from))}`);
    },
  );
  const totals = {};
  for (const span of spans) totals[span.state] = (totals[span.state] ?? 0) + span.to - span.from;
  const said = Object.entries(totals).map(([plane, seconds]) => `${model.STATES[plane].word} ${format.span(Math.round(seconds))}`);
  attribute(svg, "aria-label", `State in the last ${format.span(lengthS)}: ${said.join(", ")}`);
  keyed(
    byId("timeline-legend"),
    Object.keys(totals),
    (plane) => plane,
    (plane) => h("li", { "data-tone": model.STATES[plane].tone }, h("i", { class: "swatch" }), `${model.STATES[plane].word} `, h("b")),
    (item, plane) => text(item.lastElementChild, format.span(Math.round(totals[plane]))),
  );
  text(byId("timeline-from"), format.ago(lengthS));
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
  const radios = [...document.querySelectorAll("input[name=window]")];
  const radio = radios.find((one) => one.value === said.get("range")) ?? radios[0];
  radio.checked = true; // a browser may remember what was checked before a reload
  state.window = radio.value;
}

function remember() {
  const said = new URLSearchParams();
  if (state.scope !== null) said.set("partition", state.scope);
  if (state.window !== "recent") said.set("range", state.window);
  const query = said.toString();
  window.history.replaceState(null, "", query ? `?${query}` : window.location.pathname);
}

function choose(name) {
  state.scope = name;
  remember();
  draw();
}

byId("scope").addEventListener("change", (event) => choose(event.target.selectedOptions[0].name ?? null));

for (const radio of document.querySelectorAll("input[name=window]")) {
  radio.addEventListener("change", () => {
    state.window = radio.value;
    remember();
    draw();
  });
}

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
