// The head of the page: the state, what is wrong and what to do, and the state over time.

import { attribute, byId, facts, h, keyed, path, s, text } from "./dom.js";
import * as format from "./format.js";
import { areShown } from "./groups.js";
import * as model from "./model.js";

export const capital = (words) => words && words[0].toUpperCase() + words.slice(1);

const LOOK_AT = { generation: "generation", training: "training", queue: "the queue", data_plane: "the data plane", exporter: "the exporter" };
const SEVERITY_WORDS = { critical: "critical", warning: "warning", notice: "note" };

export function drawStatus({ snapshot, live, now, connected, frozen, problem, held, problems, notices, degraded, histories, history, showGroups }) {
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
    starting: `A controller exists and cannot be used yet, ${since}.`,
    unreachable: `The controller's address is known, but it has not answered yet, ${since}.`,
  }[plane];
  text(byId("verdict"), connected ? sentence : frozen ? "Its poll loop has stopped; restart the exporter." : "The current state is unknown: the exporter does not answer.");
  const details = { ping: ping?.detail, discovery: model.source(snapshot, "discovery")?.detail };
  const why = plane === "found" ? "" : (["ended", "never_found", "starting"].includes(plane) ? details.discovery || details.ping : details.ping || change?.detail || details.discovery) || "";
  byId("reason").hidden = !why;
  text(byId("reason"), why ? `Reason: ${format.visible(why)}` : "");
  byId("remedy").hidden = !first;
  path(byId("remedy"), first ? `What to do: ${first.remedy} More in ${first.runbook}.` : "");
  const about = areShown() && first?.about_groups ? first.name : null;
  byId("first-groups").hidden = about === null;
  byId("first-groups").onclick = () => showGroups(about);
  drawOthers(first ? held.filter((one) => one !== first) : [], now, showGroups);
  const restarts = Math.max(snapshot.generation - 1, 0);
  const { controller } = model.processes(snapshot);
  const outside = (value) => (value ? format.visible(value) : null);
  facts(byId("facts"), [
    ["Last successful ping", lastGood === null ? "never" : `${format.at(lastGood, now)}, ${format.ago(now - lastGood)}`],
    ["Controller", outside(snapshot.endpoint?.address), "the address at which it answers"],
    ["Controller id", outside(snapshot.endpoint?.controller_id), "its id in TransferQueue"],
    ["Actor id", outside(controller?.actor), "Ray's id of the controller's actor"],
    ["Node", outside(controller?.host), controller?.node ? `Ray's id of this node: ${controller.node}` : null],
    ["Process", controller?.pid ? String(controller.pid) : null, "the controller's process id on that node"],
    ["Restarts", snapshot.generation ? `${format.count(restarts)}` : null, "how often a new controller replaced the last one"],
    ["Backend", outside(snapshot.endpoint?.backend)],
    ["Partitions", live.up ? format.count(model.partitionRows(snapshot).length) : format.UNKNOWN],
  ]);
  drawTimeline(history, now);
  document.title = `${connected ? title : "No answer from the exporter"} · TransferQueue`;
  announce(connected ? null : problem, plane, degraded ? "degraded" : plane, sentence, first);
}

// The conditions after the first one, whose text is the headline's.
function drawOthers(conditions, now, showGroups) {
  byId("others").hidden = !conditions.length;
  keyed(
    byId("others"),
    conditions,
    (one) => one.name,
    (one) =>
      h("li", {}, h("span", { class: "badge", "data-tone": one.severity === "notice" ? "idle" : model.TONES[one.severity] }, SEVERITY_WORDS[one.severity]),
        h("p", {}, h("span"), " ", h("span", { class: "note" }), " ", h("a", { href: `docs/metrics#${one.name}` }, one.name), " ", groupsButton(one.name, showGroups))),
    (item, one) => {
      const [said, note, , button] = item.lastElementChild.children;
      button.hidden = !areShown() || !one.about_groups;
      text(said, `${capital(one.text)}.`);
      text(note, `${one.since === null ? "" : `Since ${format.at(one.since, now)}. `}What to do: ${one.remedy}`);
    },
  );
}

function groupsButton(name, showGroups) {
  const button = h("button", { type: "button", class: "show" }, "Show the groups");
  button.addEventListener("click", () => showGroups(name));
  return button;
}

function quietSentence(live) {
  const held = model.occupancy(live, null);
  if (!held || !live.trained) return "TransferQueue answers; its partitions are not listed yet.";
  if (!held.total && !live.total_flow?.arrived) return "TransferQueue answers; it has no groups yet.";
  if (model.isHeld(live, "DataPlaneFlows")) return "Groups flow through generation, queue and training.";
  const train = live.role_flows.find((one) => one.role === "train");
  if (!train.arrived && !Object.values(train.departed).some(Boolean)) return "TransferQueue answers; no group has arrived or left since the exporter started.";
  if (model.isKnown(live, "DataPlaneFlows")) return "TransferQueue answers; groups have not both arrived and left within the usual time.";
  return "TransferQueue answers; too few groups have arrived and left to know whether they flow.";
}

let announced = null;

// The live region announces changes of state, not of figures.
function announce(problem, plane, shown, sentence, first) {
  const now = problem === null ? `${shown} ${plane === "found" ? (first?.name ?? "") : ""}` : "away";
  if (announced === now) return;
  announced = now;
  text(byId("announcer"), problem === null ? `${model.STATES[shown].word}. ${sentence}` : `This exporter does not answer: ${problem}.`);
}

// Top and height in the strip: a fault is as high as the strip, so that it is seen without colours too.
const STRIP = { ok: [6, 8], idle: [10, 4], warn: [3, 11], bad: [0, 14] };
const SHORTEST = 2; // of 1000: a state of a second is still seen

function drawTimeline(history, now) {
  if (!history) return;
  const shown = model.coverage(history, now);
  const spans = history.spans ? recordedSpans(history, shown) : sampledSpans(history, now);
  const x = (time) => Math.min(Math.max((1000 * (time - shown.from)) / (shown.to - shown.from), 0), 1000);
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
  const unknown = shown.to - shown.from - Object.values(totals).reduce((sum, seconds) => sum + seconds, 0);
  if (history.spans && unknown > history.interval) totals.unrecorded = unknown;
  const said = Object.entries(totals).map(([plane, seconds]) => `${model.STATES[plane].word} ${format.span(Math.round(seconds))}`);
  const when = shown.live ? `in the last ${format.span(Math.round(shown.to - shown.from))}` : `from ${format.date(shown.from)} to ${format.date(shown.to)}`;
  attribute(svg, "aria-label", `State ${when}: ${said.join(", ")}`);
  keyed(
    byId("timeline-legend"),
    Object.keys(totals),
    (plane) => plane,
    (plane) => h("li", { "data-tone": model.STATES[plane].tone }, h("i", { class: "swatch" }), `${model.STATES[plane].word} `, h("b")),
    (item, plane) => text(item.lastElementChild, format.span(Math.round(totals[plane]))),
  );
  text(byId("timeline-from"), shown.live ? format.ago(shown.to - shown.from) : format.date(shown.from));
  text(byId("timeline-to"), shown.live ? "now" : format.date(shown.to));
}

// A recording says exactly when a state began and ended.
function recordedSpans(history, shown) {
  return history.spans.filter((span) => span.to > shown.from && span.from < shown.to && model.STATES[span.state])
    .map((span) => ({ ...span, from: Math.max(span.from, shown.from), to: Math.min(span.to, shown.to) }));
}

function sampledSpans(history, now) {
  const spans = [];
  history.at.forEach((at, index) => {
    const until = history.at[index + 1] ?? Math.min(now, at + 2.5 * history.interval);
    const to = Math.min(until, at + 2.5 * history.interval); // no sample: the exporter did not run, or was late
    const last = spans.at(-1);
    const here = model.stateAt(history, index);
    if (last?.state === here && at - last.to < 0.01) last.to = to;
    else spans.push({ state: here, from: at, to });
  });
  return spans;
}
