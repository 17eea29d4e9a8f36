// The three stages that groups pass through (generation, queue, training) and their figures.

import { TimeChart } from "./charts.js";
import { attribute, byId, facts, text } from "./dom.js";
import * as format from "./format.js";
import * as model from "./model.js";

export class Stages {
  constructor() {
    this.arrivals = new TimeChart(byId("in-chart"), {
      title: "Groups arriving per second",
      series: [
        { key: "rate", label: "in per second", tone: "in" },
        { key: "completed", label: "completed", tone: "ready" },
      ],
      format: format.rate,
    });
    this.departures = new TimeChart(byId("out-chart"), {
      title: "Groups leaving per second",
      series: [{ key: "rate", label: "out per second", tone: "out" }],
      format: format.rate,
    });
    this.occupancy = new TimeChart(byId("queue-chart"), {
      title: "Groups in the queue by state",
      series: model.GROUP_STATES.map((state) => ({ key: state, label: state, tone: state })),
      stacked: true,
      format: format.count,
    });
    this.lag = new TimeChart(byId("lag-chart"), {
      title: "Lag in weight versions",
      series: [
        { key: "staleness_max", label: "largest", tone: "worst" },
        { key: "staleness_mean", label: "mean", tone: "mean" },
      ],
      format: (value) => format.decimal(value, 2),
    });
  }

  draw(view) {
    const { live, history, scope, now, held: conditions, lagsInScope, rates } = view;
    const series = model.seriesOf(history, scope);
    if (history) {
      const windowS = model.rateWindow(live);
      // While the controller did not answer, the queue is unknown, although the last listing was kept a little longer.
      const past = (key) => history.at.map((_, index) => (series && history.state[index] === "found" ? series[key][index] : null));
      const flow = (key) => (series ? model.rates(history, series, key, windowS) : past(key));
      // The last point of a live chart is the present, so that its values equal those of the headline.
      const shown = model.coverage(history, now);
      const columns = (entries) => Object.fromEntries(entries.map(([key, before, current]) => [key, shown.live ? [...before, current ?? null] : before]));
      const frame = {
        at: shown.live ? [...history.at, now] : history.at,
        shown,
        interval: Math.max(history.interval, 4),
        empty: series ? "No data in this time range" : "No history: only the fullest partitions have one",
      };
      const arrived = columns([["rate", flow("arrived"), rates.arrived], ["completed", flow("completed"), rates.completed]]);
      const departed = columns([["rate", flow("departed"), rates.departed]]);
      // One scale for both, so that in and out can be compared at a glance.
      const top = Math.max(0.1, ...arrived.rate, ...arrived.completed, ...departed.rate);
      this.arrivals.draw({ ...frame, top, values: arrived });
      this.departures.draw({ ...frame, top, values: departed });
      const held = model.occupancy(live, scope);
      this.occupancy.draw({ ...frame, values: columns(model.GROUP_STATES.map((key) => [key, past(key), held?.groups[key]])) });
      const lag = [["staleness_max", past("staleness_max"), lagsInScope?.max], ["staleness_mean", past("staleness_mean"), lagsInScope?.mean]];
      this.lag.draw({ ...frame, values: columns(lag) });
    }
    byId("path").hidden = !live.up && !model.hasPast(view.histories);
    for (const stage of ["generation", "queue", "training"]) {
      const known = live.up && (stage === "queue" || live.trained);
      const severity = model.worst(conditions.filter((one) => one.stage === stage));
      attribute(byId(stage), "data-tone", severity ? model.TONES[severity] : known ? "ok" : "idle");
    }
    this.flowFacts(view);
    this.queueFacts(view);
    this.lagFacts(view);
  }

  flowFacts({ live, scope, now, histories, lagsInScope, rates }) {
    const windowS = model.rateWindow(live);
    const flow = model.flowOf(live, scope);
    const total = (key) => flow?.[key] ?? 0;
    for (const [column, figure, note, list, verb] of [
      ["arrived", "in-rate", "in-note", "in-facts", "arrived"],
      ["departed", "out-rate", "out-note", "out-facts", "left"],
    ]) {
      showFigure(byId(figure), format.rate(rates[column]));
      const pulse = model.pulse(histories, scope, column, now);
      const last = pulse.last === null ? `none ${verb} in ${format.span(Math.round(pulse.quietFor))}` : `last ${verb} ${format.ago(now - pulse.last)}`;
      text(byId(note), live.up ? `mean of ${format.span(windowS)} · ${last}` : `not known now · ${last}`);
      const usual = pulse.usual === null ? null : format.span(Math.round(pulse.usual));
      const counted = live.ready ? format.count(total(column)) : null;
      facts(
        byId(list),
        column === "arrived"
          ? [["Since start", counted], ["Completed", live.ready ? format.count(total("completed")) : null], ["Usual gap", usual], ["Newest version", lagsInScope && format.count(lagsInScope.newest)]]
          : [
              ["Since start", counted],
              ["Usual gap", usual],
              ["Residence p50", model.count(flow?.residence) ? format.span(model.quantile(flow.residence, 0.5)) : null],
              ["By last state", lastStates(flow), "the state in which they were last seen"],
              ["Lost with a controller", total("lost") ? format.count(total("lost")) : null],
              ["Came with a checkpoint", total("restored") ? format.count(total("restored")) : null],
            ],
      );
    }
  }

  queueFacts({ live, snapshot, scope, now, histories }) {
    const held = model.occupancy(live, scope);
    showFigure(byId("ready"), held ? format.count(held.groups.ready) : format.UNKNOWN);
    const storage = model.storage(live);
    const rest = held && model.GROUP_STATES.slice(1).filter((state) => held.groups[state]);
    if (held) {
      const others = rest.map((state) => `${format.count(held.groups[state])} ${state}`);
      text(byId("queue-note"), others.length ? others.join(" · ") : held.total ? "all ready" : "no groups");
    } else {
      const status = live.up ? live.statuses.find((one) => one.partition === scope) : null;
      const gone = status?.readable === false ? `cannot be read: ${model.UNREADABLE[status.reason]}` : scope !== null && model.isListed(live) ? "this partition is gone" : "not known now";
      text(byId("queue-note"), `${gone}${lastKnown(histories, scope, now)}`);
    }
    facts(byId("queue-facts"), [
      ["Storage used", scope === null && storage.fill !== null ? `${format.percent(storage.fill)} of ${format.count(storage.capacity)}` : null],
      ["Keys", held && format.count(held.keys)],
      ["Size", held && held.bytes !== null ? format.bytes(held.bytes) : null, "as producers declared it"],
      ["Oldest group", held && Number.isFinite(held.oldest) ? format.span(Math.max(Math.round(now - held.oldest), 0)) : null],
      ["Groups per step", held?.step ? format.count(held.step) : null, "how many groups the trainer takes per step"],
      ["Orphaned", held?.orphaned ? format.count(held.orphaned) : null, "taken groups that no process removes"],
      ["Rows in no group", held?.bare ? format.count(held.bare) : null, "rows with neither a tag nor an id"],
      ["Malformed rows", held?.malformed ? format.count(held.malformed) : null],
      ["Ping", live.up ? format.took(model.source(snapshot, "ping")?.duration) : null],
    ]);
  }

  lagFacts({ live, lagsInScope, now }) {
    const note = byId("lag-note");
    if (!lagsInScope) text(note, live.up ? "no partition is listed" : "not known now");
    else if (lagsInScope.version === null) text(note, "no weight version is known");
    else {
      const origin = {
        published: `from version ${lagsInScope.version}, published by the trainer`,
        rows: `from version ${lagsInScope.version}, which rows show as finished`,
        newest_seen: `from version ${lagsInScope.version}, the newest seen (lower bounds)`,
      }[lagsInScope.reference];
      const behind = lagsInScope.max === null ? "no group is behind" : `largest ${format.count(lagsInScope.max)}, mean ${format.decimal(lagsInScope.mean, 2)}`;
      const unchanged = live.reference_changed_at === null ? "" : `, unchanged for ${format.span(Math.round(now - live.reference_changed_at))}`;
      const back = live.version_regressions ? ` · stepped back ${live.version_regressions === 1 ? "once" : `${format.count(live.version_regressions)} times`}` : "";
      text(note, `${behind} · ${origin}${unchanged}${back}`);
    }
  }
}

// The counts of departed groups by the state in which they were last seen, null while none has left.
function lastStates(flow) {
  const states = model.GROUP_STATES.filter((state) => flow?.departed_by_state[state]);
  return states.length ? states.map((state) => `${format.count(flow.departed_by_state[state])} ${state}`).join(" · ") : null;
}

function showFigure(element, figure) {
  text(element, figure);
  attribute(element, "data-unknown", figure === format.UNKNOWN ? "" : null);
}

function lastKnown(histories, scope, now) {
  for (const history of histories.filter(Boolean)) {
    const series = model.seriesOf(history, scope);
    for (let index = history.at.length - 1; series && index >= 0; index -= 1) {
      if (history.state[index] === "found" && series.ready[index] !== null) {
        const when = history.at[index];
        return ` · last known ${format.count(series.ready[index])} at ${format.at(when, now)}, ${format.ago(now - when)}`;
      }
    }
  }
  return "";
}
