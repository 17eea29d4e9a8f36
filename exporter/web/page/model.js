// Computes what the page shows. Pure functions of the snapshot and the history, without access to the page.

export const GROUP_STATES = ["ready", "incomplete", "uncommitted", "failed", "taken"];

// Instead of a partition's name: the partitions that train, all together.
export const TRAINED = Symbol("trained");

// Why a partition cannot be read.
export const UNREADABLE = {
  timeout: "timed out",
  unavailable: "the controller did not answer",
  refused: "too large",
  held: "backing off after a failed listing",
  pending: "not listed yet",
  not_listable: "not listable: samples were put without keys",
  error: "its reply cannot be read",
};

export const STATES = {
  found: { word: "Running", tone: "ok" },
  degraded: { word: "Degraded", tone: "bad" },
  silent: { word: "No answer", tone: "bad" },
  lost: { word: "Lost", tone: "bad" },
  ended: { word: "Ended", tone: "idle" },
  never_found: { word: "Not found yet", tone: "idle" },
  starting: { word: "Starting", tone: "warn" },
  unreachable: { word: "Unreachable", tone: "bad" },
  unrecorded: { word: "Not recorded", tone: "idle" },
};

// A state's colour is that of its tone, everywhere: in the headline, the strip, its legend and the tables.
export const stateAt = (history, index) => (history.state[index] === "found" && history.degraded[index] ? "degraded" : history.state[index]);

const RATE_S = 30; // rates are means over this time at least
const SHORTEST_RATE_S = 4; // listings closer together than this give no rate

export const planeState = (snapshot) =>
  snapshot.discovery === "found" && !snapshot.up ? "silent" : snapshot.discovery;

export const source = (snapshot, name) => snapshot.sources.find((one) => one.source === name);

const sum = (values) => values.reduce((total, value) => total + value, 0);
// The selected partition, or the snapshot's sum of all partitions. Null when unknown.
const inView = (snapshot, scope) =>
  (snapshot.up && (scope === null ? snapshot.total : snapshot.partitions.find((one) => one.partition === scope))) || null;

// The flow through the selection since the exporter started, null when unknown.
export const flowOf = (snapshot, scope) =>
  (scope === null ? snapshot.total_flow : snapshot.flows.find((one) => one.partition === scope)) ?? null;

// Whether the list of partitions is known: then an empty list means that there are none.
export const isListed = (snapshot) => inView(snapshot, null) !== null;

export function occupancy(snapshot, scope) {
  const part = inView(snapshot, scope);
  if (!part) return null;
  return {
    groups: part.groups,
    total: sum(Object.values(part.groups)),
    keys: part.keys,
    bytes: part.size_bytes,
    malformed: part.malformed_rows,
    bare: part.bare_rows,
    orphaned: part.orphaned,
    step: part.groups_per_step,
    oldest: Math.min(...part.oldest.map((one) => one.created_at), Infinity),
  };
}

export function lags(snapshot, scope) {
  const part = inView(snapshot, scope);
  if (!part || !snapshot.partitions.length) return null;
  return {
    // "ahead" is the lowest lag, but a JavaScript object lists its numeric keys first.
    counts: Object.entries(part.staleness).sort(([one], [other]) => (other === "ahead") - (one === "ahead")),
    max: part.staleness_max,
    mean: part.staleness_mean,
    reference: part.reference,
    version: part.reference_version,
    newest: part.newest_version,
  };
}

// Groups by weight version: newest first, then older and unknown.
export function versions(snapshot, scope) {
  const part = inView(snapshot, scope);
  return part && snapshot.partitions.length ? part.weight_versions : null;
}

export const count = (histogram) => sum(histogram?.counts ?? []);

// The quantile of a histogram, with linear interpolation within a bucket, as Prometheus's histogram_quantile does.
export function quantile(histogram, share) {
  if (!count(histogram)) return null;
  let below = 0;
  const rank = share * count(histogram);
  for (let index = 0; index < histogram.bounds.length; index += 1) {
    const here = histogram.counts[index];
    if (here && below + here >= rank) {
      const low = index ? histogram.bounds[index - 1] : 0;
      return low + (histogram.bounds[index] - low) * ((rank - below) / here);
    }
    below += here;
  }
  return histogram.bounds.at(-1);
}

// The time that a history covers: {from, to, live}. A live one ends now.
export function coverage(history, now) {
  if (history.window !== "recorded") return { from: now - history.interval * history.samples, to: now, live: true };
  return history.live ? { from: now - (history.to - history.from), to: now, live: true } : { from: history.from, to: history.to, live: false };
}

// The selection's history: a series of columns, or null where there is none.
export function seriesOf(history, scope) {
  if (!history) return null;
  if (scope === TRAINED) return history.trained;
  return scope === null ? history.total : (history.partitions.find((one) => one.partition === scope) ?? null);
}

// A counter's rate per sample, from listing to listing, as a mean over windowS or more; null where unknown. A
// counter that does not grow because nothing was listed has an unknown rate, not 0.
export function rates(history, series, key, windowS) {
  const counter = series[key];
  const listed = history.at.map((at, index) => at - series.listed[index]);
  let from = 0;
  return history.at.map((_, index) => {
    if (history.state[index] !== "found" || counter[index] === null || series.listed[index] === null) {
      from = index + 1;
      return null;
    }
    while (from < index && listed[index] - listed[from + 1] >= windowS) from += 1;
    const elapsed = listed[index] - listed[from];
    const grown = counter[index] - counter[from];
    if (grown < 0) from = index; // the counter was reset
    return elapsed < SHORTEST_RATE_S || grown < 0 ? null : grown / elapsed;
  });
}

// The current rates, from the recent history; null while unknown.
export function currentRates(snapshot, recent, scope) {
  const series = snapshot.up ? seriesOf(recent, scope) : null;
  const rate = (key) => (series ? (rates(recent, series, key, rateWindow(snapshot)).at(-1) ?? null) : null);
  return { arrived: rate("arrived"), completed: rate("completed"), departed: rate("departed") };
}

export function rateWindow(snapshot) {
  return Math.max(RATE_S, 3 * (source(snapshot, "metadata")?.interval ?? 0));
}

// The times at which a counter was seen to grow, oldest first.
function growthTimes(history, counter) {
  const times = [];
  for (let index = 1; index < counter.length; index += 1) {
    const [before, here] = [counter[index - 1], counter[index]];
    if (before !== null && here !== null && here > before) times.push(history.at[index]);
  }
  return times;
}

function median(values) {
  const sorted = [...values].sort((one, other) => one - other);
  return sorted[Math.floor(sorted.length / 2)];
}

// When a counter last grew, as far back as the history goes, and how often it usually grows. For display: whether that is
// too long ago is judged by the exporter.
export function pulse(histories, scope, column, now) {
  const found = histories
    .filter(Boolean)
    .map((history) => growthTimes(history, seriesOf(history, scope)?.[column] ?? []));
  const last = found.find((times) => times.length)?.at(-1) ?? -Infinity; // the finer history is exact
  const times = found.find((one) => one.length >= 4) ?? [];
  const gaps = times.slice(1).map((time, index) => time - times[index]);
  const usual = gaps.length ? median(gaps) : null;
  const begin = Math.min(...histories.filter(Boolean).flatMap((history) => history.at.slice(0, 1)), now);
  // The time since the last listing is unknown: a counter counts as quiet only up to that listing.
  const newest = histories.find(Boolean);
  const age = newest ? (seriesOf(newest, scope)?.listed.at(-1) ?? null) : null;
  const until = age === null ? now : newest.at.at(-1) - age;
  const quietFor = Math.max(until - (Number.isFinite(last) ? last : begin), 0);
  return {
    last: Number.isFinite(last) ? last : null,
    quietFor,
    usual,
  };
}

// One row per task, and one for a partition without any: [{partition, samples, task, consumed_ratio, produced_ratio, judges}].
export function taskRows(snapshot) {
  const none = { task: null, consumed_ratio: null, produced_ratio: null };
  return snapshot.samples.flatMap(({ partition, samples, task: judge }) => {
    const tasks = snapshot.tasks.filter((one) => one.partition === partition);
    return (tasks.length ? tasks : [none]).map((one) => ({ ...one, partition, samples, judges: one.task !== null && one.task === judge }));
  });
}

// Partitions as rows, worst first: those that a condition names, those that cannot be read, then the largest lag. Otherwise
// in the exporter's order, so that rows keep their places.
export function partitionRows(snapshot) {
  const statuses = new Map(snapshot.statuses.map((one) => [one.partition, one]));
  const listed = snapshot.partitions.map((part) => ({ ...part, status: statuses.get(part.partition) ?? null }));
  const names = new Set(snapshot.partitions.map((part) => part.partition));
  const estimates = new Map(snapshot.estimates.map((one) => [one.partition, one]));
  const hidden = snapshot.statuses
    .filter((one) => !one.readable && !names.has(one.partition))
    .map((one) => ({ partition: one.partition, role: one.role, listed_at: one.listed_at, groups: {}, oldest: [], status: one }));
  const held = heldConditions(snapshot);
  const rank = (part) => {
    const severity = worst(held.filter((one) => one.partitions.includes(part.partition)));
    return [severity ? SEVERITIES.indexOf(severity) : SEVERITIES.length, part.status?.readable === false ? 0 : 1, -(part.staleness_max ?? 0)];
  };
  const ranked = [...hidden, ...listed].map((part) => ({ ...part, estimate: estimates.get(part.partition) ?? null, severity: null, rank: rank(part) }));
  for (const part of ranked) part.severity = SEVERITIES[part.rank[0]] ?? null;
  return ranked.sort((one, other) => one.rank.map((value, index) => value - other.rank[index]).find(Boolean) ?? 0);
}

// What the discovery record says of the processes: where the controller and each storage unit run.
export function processes(snapshot) {
  const of = (one) => ({ actor: one.actor_id ?? null, node: one.node_id ?? null, pid: one.pid ?? null, host: hostOf(one.address) });
  const { endpoint } = snapshot;
  return {
    controller: endpoint ? of(endpoint) : null,
    units: new Map((endpoint?.storage_units ?? []).map((unit) => [unit.index, of(unit)])),
  };
}

const hostOf = (address) => /^tcp:\/\/(.+):\d+$/.exec(address)?.[1] ?? null;

// Whether the histories have anything of a data plane that answered.
export const hasPast = (histories) => histories.some((history) => history?.state.includes("found"));

// How full a unit is: by keys or, without a limit of those, by bytes; null when unlimited or unknown.
export function fill(unit) {
  if (unit.capacity && unit.keys !== null) return unit.keys / unit.capacity;
  return unit.memory_limit_bytes && unit.memory_bytes !== null ? unit.memory_bytes / unit.memory_limit_bytes : null;
}

export function storage(snapshot) {
  const capacities = snapshot.storage.map((unit) => unit.capacity);
  const keys = snapshot.storage.map((unit) => unit.keys);
  const capacity = capacities.length && !capacities.includes(null) ? sum(capacities) : null;
  const held = keys.length && !keys.includes(null) ? sum(keys) : null;
  return {
    missing: snapshot.up ? snapshot.storage.filter((unit) => unit.error_type !== null).length : 0,
    fill: snapshot.up && capacity && held !== null ? held / capacity : null,
    capacity,
    keys: held,
  };
}

// The conditions that hold, as the exporter judged them: causes first. Nothing is judged here.
export const heldConditions = (snapshot) => snapshot.conditions.filter((one) => one.holds && one.severity !== "ok");

export const isHeld = (snapshot, name) => snapshot.conditions.some((one) => one.name === name && one.holds);

export const isKnown = (snapshot, name) => snapshot.conditions.some((one) => one.name === name && one.holds !== null);

export const TONES = { critical: "bad", warning: "warn", notice: "ok", ok: "ok" };

// What a condition says, empty while it does not hold.
export const conditionText = (snapshot, name) => snapshot.conditions.find((one) => one.name === name)?.text ?? "";

const SEVERITIES = ["critical", "warning", "notice"];

// The severity of the worst of some conditions, null when there is none.
export const worst = (conditions) => SEVERITIES.find((severity) => conditions.some((one) => one.severity === severity)) ?? null;

// Of a data plane that does not answer, what was last known instead of nothing.
export function lastKnown(snapshot) {
  const last = snapshot.last_known;
  if (snapshot.up || !last) return snapshot;
  const listed = snapshot.partitions.length ? {} : { partitions: last.partitions, statuses: last.statuses };
  return { ...snapshot, ...listed, storage: snapshot.storage.length ? snapshot.storage : last.storage };
}
