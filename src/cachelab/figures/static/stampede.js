// The stampede explorer: the model of cachelab/models/stampede.py, its picture and its controls.
// One plain module without imports, for two places: a live widget (the default export), and a
// page without a kernel, where `mountAll` brings every still of the explorer to life.

// The model. Numbers in seconds; the same sums in the same order as in Python, and tested equal.

const SAME_MOMENT = 1e-9; // relative: an arrival this close to the first answer still misses

function arrivedBy(times, moment) {
  const until = moment * (1 + SAME_MOMENT);
  let low = 0;
  let high = times.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (times[middle] <= until) low = middle + 1;
    else high = middle;
  }
  return low;
}

export function arrivalTimes(readers, window) {
  const gap = window / readers;
  return Float64Array.from({ length: readers }, (_, reader) => reader * gap);
}

// Work that the first query has had when each reader arrives, with c slots shared equally.
function sharedWork(times, slots) {
  const work = new Float64Array(times.length);
  for (let reader = 1; reader < times.length; reader++) {
    const speed = Math.min(1, slots / reader);
    work[reader] = work[reader - 1] + (times[reader] - times[reader - 1]) * speed;
  }
  return work;
}

function endsFirstCome(times, missed, queryTime, slots) {
  const ends = new Float64Array(missed);
  const columns = Math.min(slots, missed);
  const latest = new Float64Array(columns).fill(-Infinity);
  for (let query = 0; query < missed; query++) {
    const column = query % columns;
    const before = Math.floor(query / columns) * queryTime;
    latest[column] = Math.max(latest[column], times[query] - before);
    ends[query] = latest[column] + before + queryTime;
  }
  return ends;
}

function endsShared(times, queryTime, slots) {
  const work = sharedWork(times, slots);
  const running = arrivedBy(work, queryTime);
  const speed = (together) => Math.min(1, slots / together);
  const first = times[running - 1] + (queryTime - work[running - 1]) / speed(running);
  const ends = new Float64Array(running);
  let since = 0;
  for (let query = 0; query < running; query++) {
    since += (query ? work[query] - work[query - 1] : work[0]) / speed(running - query);
    ends[query] = first + since;
  }
  return [first, ends];
}

// discipline: "fcfs" (a queue) or "ps" (all share). Readers come evenly over the window.
export function simulate({ readers, window, queryTime, slots, discipline, singleFlight }) {
  const arrivals = arrivalTimes(readers, window);
  let first = queryTime;
  let ends;
  if (singleFlight) ends = Float64Array.of(queryTime);
  else if (discipline === "fcfs")
    ends = endsFirstCome(arrivals, arrivedBy(arrivals, queryTime), queryTime, slots);
  else [first, ends] = endsShared(arrivals, queryTime, slots);
  const waits = arrivals.map((at, reader) =>
    reader < ends.length ? ends[reader] - at : at <= first ? first - at : 0,
  );
  return {
    arrivals,
    waits,
    queries: ends.length,
    firstAnswer: first,
    lastAnswer: ends[ends.length - 1],
    longestWait: waits.reduce((most, wait) => Math.max(most, wait), 0),
  };
}

// Readers that reach the database at each of the query times (s); cheaper than `simulate`.
export function queriesAt(queryTimes, { readers, window, slots, discipline, singleFlight }) {
  const arrivals = arrivalTimes(readers, window);
  const clock = discipline === "ps" ? sharedWork(arrivals, slots) : arrivals;
  return queryTimes.map((queryTime) => (singleFlight ? 1 : arrivedBy(clock, queryTime)));
}

// Words.

export function fixed(value, places) {
  return Number(value.toFixed(places)).toLocaleString("en-US", {
    minimumFractionDigits: places,
    maximumFractionDigits: places,
  });
}

export function seconds(value) {
  if (value < 0.0995) return `${Number((value * 1e3).toPrecision(3))} ms`;
  if (value < 9.995) return `${fixed(value, 2)} s`;
  return value < 99.95 ? `${fixed(value, 1)} s` : `${fixed(value, 0)} s`;
}

export function load({ readers, window, queryTime, slots }) {
  return window > 0 ? ((readers / window) * queryTime) / slots : Infinity;
}

export function say(settings, run) {
  const reach = run.queries === 1 ? "reaches" : "reach";
  return (
    `${fixed(run.queries, 0)} of ${fixed(settings.readers, 0)} ${reach} the database; ` +
    `the longest wait is ${seconds(run.longestWait)}, ` +
    `the last answer comes after ${seconds(run.lastAnswer)}.`
  );
}

export function sayLoad(settings) {
  const { readers, window, queryTime, slots } = settings;
  if (window === 0) return "All arrive at once: the load has no bound.";
  const offered = load(settings);
  const shown = offered < 10 ? String(Number(offered.toPrecision(2))) : fixed(offered, 0);
  const times = `${fixed(readers / window, 0)} readers/s \u00d7 ${seconds(queryTime)} \u00f7 ${slots}`;
  const where = offered > 1 ? "above the tipping point" : "up to the tipping point";
  return `Load: ${times} = ${shown}, ${where} at 1.`;
}

// The picture: left, readers arrived and answered over time; right, the tipping point.

const NS = "http://www.w3.org/2000/svg";
const INK = { blue: "#0072B2", orange: "#E69F00", sky: "#56B4E9", red: "#D55E00", grey: "#5f5f5f" };
const TIME = { left: 66, right: 470, top: 46, bottom: 262 };
const TIP = { left: 570, right: 822, top: 46, bottom: 262 };
const LOADS = { low: 0.01, high: 1000 };
const POINTS = 120; // of a curve; more cannot be seen
const STEPS = 70; // loads at which the right-hand curves are computed

// New text is laid out again even if it is the old one, so it is set only when it changes.
function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function svg(kind, attributes, parent, text) {
  const node = document.createElementNS(NS, kind);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  parent.append(node);
  return node;
}

function roundLimit(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map((step) => step * power).find((end) => end >= value) ?? 10 * power;
}

function path(points) {
  return "M" + points.map(([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`).join("L");
}

function frame(root, box, xLabel, yLabel) {
  const axes = svg("g", { class: "axes" }, root);
  const { left, right, top, bottom } = box;
  svg("path", { d: `M${left} ${top}V${bottom}H${right}`, fill: "none", stroke: "#222" }, axes);
  svg("text", { x: (left + right) / 2, y: bottom + 36, "text-anchor": "middle" }, axes, xLabel);
  const turned = { transform: `translate(${left - 52} ${(top + bottom) / 2}) rotate(-90)` };
  svg("text", { ...turned, "text-anchor": "middle" }, axes, yLabel);
  return axes;
}

function count(value) {
  return fixed(value, Number.isInteger(value) || value > 20 ? 0 : 1);
}

// Four ticks along an axis, whose texts are set later.
function ticks(axes, box, side) {
  return Array.from({ length: 5 }, (_, tick) => {
    const part = tick / 4;
    const x = side === "x" ? box.left + part * (box.right - box.left) : box.left;
    const y = side === "y" ? box.bottom - part * (box.bottom - box.top) : box.bottom;
    const line = side === "x" ? `M${x} ${box.top}V${y}` : `M${x} ${y}H${box.right}`;
    if (tick) svg("path", { d: line, stroke: "#ddd" }, axes);
    const at = side === "x" ? { x, y: y + 17, "text-anchor": "middle" } : { x: x - 6, y: y + 4, "text-anchor": "end" };
    return svg("text", at, axes, "");
  });
}

function legendLine(root, x, y, text, attributes) {
  svg("path", { d: `M${x} ${y - 4}h26`, fill: "none", "stroke-width": 2.5, ...attributes }, root);
  svg("text", { x: x + 32, y }, root, text);
}

class Picture {
  constructor(parent) {
    this.root = svg("svg", { viewBox: "0 0 840 306", role: "img", class: "cachelab-picture" }, parent);
    this.title = svg("title", {}, this.root, "");
    const time = frame(this.root, TIME, "time after the first reader", "readers");
    this.timeTicks = ticks(time, TIME, "x");
    this.readerTicks = ticks(time, TIME, "y");
    const tip = frame(this.root, TIP, "load: arrival rate \u00d7 query time \u00f7 slots", "readers that query");
    this.queryTicks = ticks(tip, TIP, "y");
    for (let decade = -2; decade <= 3; decade++) {
      const x = this.loadX(10 ** decade);
      if (decade > -2) svg("path", { d: `M${x} ${TIP.top}V${TIP.bottom}`, stroke: "#ddd" }, tip);
      const name = decade < 3 ? String(10 ** decade) : "1,000";
      svg("text", { x, y: TIP.bottom + 17, "text-anchor": "middle" }, tip, name);
    }
    const one = this.loadX(1);
    const dotted = { "stroke-dasharray": "2 4", "stroke-width": 2 };
    svg("path", { d: `M${one} ${TIP.top - 8}V${TIP.bottom}`, stroke: INK.red, ...dotted }, tip);
    svg("text", { x: one, y: TIP.top - 13, "text-anchor": "middle", fill: "#9c4400" }, tip, "tipping point");

    const queue = { stroke: INK.orange, "stroke-dasharray": "7 4" };
    const share = { stroke: INK.blue };
    this.waiting = svg("path", { fill: INK.sky, "fill-opacity": 0.4 }, this.root);
    this.arrived = svg("path", { fill: "none", "stroke-width": 2.5, ...queue }, this.root);
    this.answered = svg("path", { fill: "none", "stroke-width": 2.5, ...share }, this.root);
    this.filled = svg("path", { stroke: "#222", ...dotted }, this.root);
    this.queue = svg("path", { fill: "none", "stroke-width": 2.5, ...queue }, this.root);
    this.share = svg("path", { fill: "none", "stroke-width": 2.5, ...share }, this.root);
    this.here = svg("path", { fill: "#fff", stroke: "#222", "stroke-width": 2.5 }, this.root);

    legendLine(this.root, 60, 16, "arrived", queue);
    legendLine(this.root, 160, 16, "answered", share);
    svg("rect", { x: 268, y: 6, width: 26, height: 11, fill: INK.sky, "fill-opacity": 0.4 }, this.root);
    svg("text", { x: 300, y: 16 }, this.root, "waiting");
    legendLine(this.root, 366, 16, "first answer", { stroke: "#222", ...dotted });
    legendLine(this.root, 560, 16, "queue", queue);
    legendLine(this.root, 650, 16, "sharing", share);
    svg("circle", { cx: 754, cy: 12, r: 6, fill: "#fff", stroke: "#222", "stroke-width": 2.5 }, this.root);
    svg("text", { x: 766, y: 16 }, this.root, "you");
    this.curvesOf = "";
  }

  loadX(value) {
    const decades = Math.log10(LOADS.high / LOADS.low);
    return TIP.left + (Math.log10(value / LOADS.low) / decades) * (TIP.right - TIP.left);
  }

  update(settings, run) {
    const { readers } = settings;
    this.drawTime(settings, run);
    const y = (queries) => TIP.bottom - (queries / readers) * (TIP.bottom - TIP.top);
    // Along the load the query time changes, so a new query time leaves the curves as they are.
    const wanted = [readers, settings.window, settings.slots, settings.singleFlight].join();
    if (wanted !== this.curvesOf) {
      this.curvesOf = wanted;
      const loads = Array.from({ length: STEPS + 1 }, (_, step) => LOADS.low * (LOADS.high / LOADS.low) ** (step / STEPS));
      const queryTimes = loads.map((each) => (each * settings.slots * settings.window) / readers);
      for (const [line, discipline] of [[this.queue, "fcfs"], [this.share, "ps"]]) {
        const found = queriesAt(queryTimes, { ...settings, discipline });
        line.setAttribute("d", path(loads.map((each, step) => [this.loadX(each), y(found[step])])));
      }
      this.queryTicks.forEach((tick, part) => write(tick, count((part * readers) / 4)));
    }
    const offered = load(settings);
    const at = [this.loadX(Math.min(Math.max(offered, LOADS.low), LOADS.high)), y(run.queries)];
    const [cx, cy] = at.map((each) => each.toFixed(1));
    // A circle; beyond the end of the axis a triangle that points there.
    const side = offered > LOADS.high ? 1 : offered < LOADS.low ? -1 : 0;
    const shape = side
      ? `M${cx} ${cy}m${-7 * side} -8l${15 * side} 8l${-15 * side} 8z`
      : `M${cx} ${cy}m-7 0a7 7 0 1 0 14 0a7 7 0 1 0 -14 0z`;
    this.here.setAttribute("d", shape);
    const way = settings.discipline === "ps" ? "share the database" : "queue for the database";
    this.title.textContent = `Readers over time, and the tipping point. Queries ${way}. ${say(settings, run)}`;
  }

  drawTime(settings, run) {
    const { readers, window } = settings;
    const end = roundLimit(Math.max(run.lastAnswer, run.firstAnswer, window));
    const x = (at) => TIME.left + (at / end) * (TIME.right - TIME.left);
    const y = (count) => TIME.bottom - (count / readers) * (TIME.bottom - TIME.top);
    const answers = run.arrivals.map((at, reader) => at + run.waits[reader]).sort();
    const stride = Math.max(1, Math.ceil(readers / POINTS));
    const steps = (times) => {
      const points = [[x(times[0]), y(0)]];
      for (let reader = 0; reader < readers; reader += stride) points.push([x(times[reader]), y(reader + 1)]);
      points.push([x(times[readers - 1]), y(readers)]);
      return points;
    };
    const came = steps(run.arrivals);
    const went = steps(answers);
    this.arrived.setAttribute("d", path([...came, [x(end), y(readers)]]));
    this.answered.setAttribute("d", path([[x(0), y(0)], ...went, [x(end), y(readers)]]));
    this.waiting.setAttribute("d", path([...came, ...went.reverse()]) + "Z");
    this.filled.setAttribute("d", `M${x(run.firstAnswer).toFixed(1)} ${TIME.top}V${TIME.bottom}`);
    const unit = end < 1 ? [1e3, "ms"] : [1, "s"];
    this.timeTicks.forEach((tick, part) => {
      const shown = Number((((part * end) / 4) * unit[0]).toPrecision(3)).toLocaleString("en-US");
      write(tick, part ? `${shown} ${unit[1]}` : "0");
    });
    this.readerTicks.forEach((tick, part) => write(tick, count((part * readers) / 4)));
  }
}

// The controls. Settings as a page stores them: times in ms.

export const RANGES = {
  readers: { label: "Readers", low: 10, high: 2000, step: 10, unit: "readers" },
  window_ms: { label: "They arrive within", low: 0, high: 1000, step: 10, unit: "ms" },
  query_ms: { label: "Query time", low: 1, high: 500, step: 1, unit: "ms" },
  slots: { label: "Database slots", low: 1, high: 100, step: 1, unit: "slots" },
};
export const DISCIPLINES = { fcfs: "queue: one query a slot", ps: "sharing: all run at once" };

const STYLE = `
.cachelab-stampede { max-width: 860px; color: #222; background: #fff; padding: 4px; border-radius: 4px;
  contain: layout paint style; font: 14px/1.4 system-ui, sans-serif; }
.cachelab-stampede svg { width: 100%; height: auto; display: block; }
.cachelab-stampede svg text { font-size: 13px; fill: #222; }
.cachelab-controls { display: grid; grid-template-columns: repeat(auto-fit, minmax(330px, 1fr)); gap: 2px 24px; }
.cachelab-control { display: grid; grid-template-columns: 130px 1fr 100px; gap: 8px; align-items: center; }
.cachelab-control span { white-space: nowrap; }
.cachelab-control input { width: 100%; margin: 3px 0; accent-color: ${INK.blue}; }
.cachelab-choice { grid-column: 1 / -1; border: 0; margin: 0; padding: 2px 0; display: flex; flex-wrap: wrap; gap: 2px 16px; align-items: center; }
.cachelab-choice legend { float: left; padding: 0; width: 130px; }
.cachelab-stampede label { cursor: pointer; }
.cachelab-stampede input:focus-visible { outline: 3px solid #222; outline-offset: 2px; }
.cachelab-reading { margin: 6px 0 0; font-weight: 600; }
.cachelab-load, .cachelab-question { margin: 2px 0 0; }
.cachelab-spoken { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
`;

const SPOKEN_AFTER = 400; // ms after the last move: a screen reader is not flooded
let mounted = 0;

function html(kind, attributes, parent, text) {
  const node = document.createElement(kind);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  parent.append(node);
  return node;
}

export function inSeconds(stored) {
  return {
    readers: stored.readers,
    window: stored.window_ms / 1000,
    queryTime: stored.query_ms / 1000,
    slots: stored.slots,
    discipline: stored.discipline,
    singleFlight: stored.single_flight,
  };
}

// Put the explorer into `host`. `changed(settings)` is called after every move of the learner.
// Returns { set(settings), end() }.
export function mount(host, stored, question = "", changed = () => {}) {
  const settings = { ...stored };
  const id = `cachelab-stampede-${++mounted}`;
  host.replaceChildren();
  host.classList.add("cachelab-stampede");
  html("style", {}, host, STYLE);
  const controls = html("div", { class: "cachelab-controls" }, host);
  const inputs = {};
  const shown = {};
  for (const [name, { label, low, high, step }] of Object.entries(RANGES)) {
    const row = html("div", { class: "cachelab-control" }, controls);
    html("label", { for: `${id}-${name}` }, row, label);
    inputs[name] = html("input", { type: "range", id: `${id}-${name}`, min: low, max: high, step }, row);
    shown[name] = html("span", { "aria-hidden": "true" }, row); // spoken as the slider's value
    inputs[name].addEventListener("input", () => move(name, Number(inputs[name].value)));
  }
  const choices = html("fieldset", { class: "cachelab-choice" }, controls);
  html("legend", {}, choices, "The database");
  const radios = Object.entries(DISCIPLINES).map(([value, text]) => {
    const label = html("label", {}, choices);
    const radio = html("input", { type: "radio", name: `${id}-discipline`, value }, label);
    label.append(` ${text}`);
    radio.addEventListener("change", () => move("discipline", value));
    return radio;
  });
  const flight = html("label", {}, html("div", { class: "cachelab-choice" }, controls));
  const single = html("input", { type: "checkbox" }, flight);
  flight.append(" single-flight: one reader queries, the others wait for its answer");
  single.addEventListener("change", () => move("single_flight", single.checked));

  const picture = new Picture(host);
  const reading = html("p", { class: "cachelab-reading" }, host);
  const loaded = html("p", { class: "cachelab-load" }, host);
  const spoken = html("p", { class: "cachelab-spoken", role: "status", "aria-live": "polite" }, host);
  if (question) html("p", { class: "cachelab-question" }, host, `Question: ${question}`);
  let speaking = 0;

  // JupyterLab's own keys (arrows move between cells) stay out of the controls.
  for (const input of host.querySelectorAll("input")) input.dataset.lmSuppressShortcuts = "true";

  function show() {
    for (const [name, { unit }] of Object.entries(RANGES)) {
      const value = settings[name];
      const words = `${fixed(value, 0)} ${value === 1 ? unit.replace(/(reader|slot)s/, "$1") : unit}`;
      if (inputs[name].value !== String(value)) inputs[name].value = value;
      if (shown[name].textContent === words) continue;
      write(shown[name], words);
      inputs[name].setAttribute("aria-valuetext", words);
    }
    for (const radio of radios) radio.checked = radio.value === settings.discipline;
    single.checked = settings.single_flight;
    const now = inSeconds(settings);
    const run = simulate(now);
    picture.update(now, run);
    write(reading, say(now, run));
    write(loaded, sayLoad(now));
    clearTimeout(speaking);
    speaking = setTimeout(() => (spoken.textContent = `${reading.textContent} ${loaded.textContent}`), SPOKEN_AFTER);
  }

  function move(name, value) {
    settings[name] = value;
    show();
    changed({ ...settings });
  }

  show();
  return {
    set(news) {
      Object.assign(settings, news);
      show();
    },
    end: () => clearTimeout(speaking),
  };
}

// In a page without a kernel: bring every still to life. Ours may be put into the page only after
// this has run, so it looks again for a while.
export function mountAll(tries = 40) {
  const stills = document.querySelectorAll(".cachelab-stampede[data-settings]");
  for (const host of stills) {
    const stored = JSON.parse(host.dataset.settings);
    delete host.dataset.settings;
    mount(host, stored, host.dataset.question);
  }
  if (!stills.length && tries) setTimeout(() => mountAll(tries - 1), 50);
}

// In a live notebook: the settings are also the kernel's, a moment after the last move.

const KERNEL_HEARS_AFTER = 150; // ms
const NAMES = [...Object.keys(RANGES), "discipline", "single_flight"];

function render({ model, el }) {
  const host = html("div", {}, el);
  const held = () => Object.fromEntries(NAMES.map((name) => [name, model.get(name)]));
  let telling = 0;
  const explorer = mount(host, held(), model.get("question"), (settings) => {
    clearTimeout(telling);
    telling = setTimeout(() => {
      for (const name of NAMES) model.set(name, settings[name]);
      model.save_changes();
    }, KERNEL_HEARS_AFTER);
  });
  const heard = () => explorer.set(held());
  for (const name of NAMES) model.on(`change:${name}`, heard);
  return () => {
    for (const name of NAMES) model.off(`change:${name}`, heard);
    clearTimeout(telling);
    explorer.end();
  };
}

export default { render };
