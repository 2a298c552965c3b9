// The moving parts of the dashboard: charts of one ticker (dygraphs) and live figures from
// /metrics. The page's facts are in its HTML already.
"use strict";

const byId = (id) => document.getElementById(id);
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const percent = (value, digits) => `${value >= 0 ? "+" : ""}${(100 * value).toFixed(digits)}%`;
const charts = {};

function draw(id, data, options) {
    if (!window.Dygraph) {
        byId(id).textContent = "This build has no chart library; the tables have the numbers.";
        return;
    }
    if (charts[id]) {
        charts[id].destroy();
    }
    charts[id] = new Dygraph(byId(id), data, {
        axisLineColor: colour("--line"),
        gridLineColor: colour("--line"),
        legend: "never",
        axisLabelFontSize: 12,
        ...options,
    });
}

function drawTicker(series, days) {
    const first = days > 0 ? Math.max(0, series.date.length - days) : 0;
    const rows = series.date.map((text, i) => i).slice(first);
    const date = rows.map((i) => new Date(`${series.date[i]}T00:00:00`));
    const unseen = new Date(`${series.test_first_date}T00:00:00`);
    draw("price", rows.map((i, k) => [date[k], series.adj_close[i]]), {
        labels: ["date", "adjusted close"],
        colors: [colour("--accent")],
        underlayCallback: (canvas, area, chart) => {
            const left = Math.max(chart.toDomXCoord(unseen), area.x);
            if (left < area.x + area.w) {
                canvas.fillStyle = colour("--raised");
                canvas.fillRect(left, area.y, area.x + area.w - left, area.h);
            }
        },
    });
    const scaled = (value) => (value === null ? null : 100 * value);
    draw("return", rows.map((i, k) => [
        date[k],
        [scaled(series.low_95[i] ?? series.predicted_return[i]),
            scaled(series.predicted_return[i]),
            scaled(series.high_95[i] ?? series.predicted_return[i])],
        series.actual_return[i] === null ? [null, null, null]
            : Array(3).fill(scaled(series.actual_return[i])),
    ]), {
        labels: ["date", "predicted", "happened"],
        customBars: true,
        colors: [colour("--accent"), colour("--second")],
        legend: "always",
        labelsDiv: byId("legend"),
        digitsAfterDecimal: 3,
        series: {
            predicted: { strokeWidth: 2 },
            happened: { strokeWidth: 0, drawPoints: true, pointSize: 1.6 },
        },
    });
}

// How often the 95% interval held, as far as it is known.
function summarise(series) {
    const last = series.date.length - 1;
    const known = series.date.map((text, i) => i)
        .filter((i) => series.actual_return[i] !== null && series.low_95[i] !== null
            && series.date[i] >= series.test_first_date);
    const inside = known.filter((i) => series.low_95[i] <= series.actual_return[i]
        && series.actual_return[i] <= series.high_95[i]).length;
    const interval = series.low_95[last] === null ? "no interval"
        : `95% interval ${percent(series.low_95[last], 2)} to ${percent(series.high_95[last], 2)}`;
    const held = known.length === 0 ? ""
        : ` On the ${known.length} days not seen in training, ${(100 * inside / known.length).toFixed(1)}% of returns fell inside.`;
    return `${series.ticker}, close of ${series.date[last]} at ${series.adj_close[last].toFixed(2)}: `
        + `predicted ${percent(series.predicted_return[last], 3)} for the next trading day, ${interval}.${held}`;
}

let shown = null;

async function showTicker() {
    const ticker = byId("ticker").value;
    const path = `/tickers/${encodeURIComponent(ticker)}`;
    const answer = await fetch(path);
    const series = await answer.json();
    if (answer.status === 503) {
        byId("summary").textContent = `${ticker}: ${series.error}`;
        setTimeout(showTicker, 1000);
        return;
    }
    if (!answer.ok) {
        byId("summary").textContent = series.error;
        return;
    }
    shown = series;
    byId("series").href = path;
    byId("summary").textContent = summarise(series);
    drawTicker(series, Number(byId("days").value));
}

// ---- Live figures --------------------------------------------------------------------------

function parseMetrics(text) {
    const samples = [];
    for (const line of text.split("\n")) {
        const found = /^([a-z_]+)(?:\{(.*)\})? (\S+)$/.exec(line);
        if (found) {
            const labels = {};
            for (const [, name, value] of (found[2] ?? "").matchAll(/(\w+)="([^"]*)"/g)) {
                labels[name] = value;
            }
            samples.push({ name: found[1], labels, value: Number(found[3]) });
        }
    }
    return samples;
}

const total = (samples, name) => samples.filter((s) => s.name === name)
    .reduce((sum, s) => sum + s.value, 0);

function buckets(samples) {
    const sums = new Map();
    for (const s of samples) {
        if (s.name === "rp_http_request_duration_seconds_bucket") {
            const limit = s.labels.le === "+Inf" ? Infinity : Number(s.labels.le);
            sums.set(limit, (sums.get(limit) ?? 0) + s.value);
        }
    }
    return sums;
}

// The bucket limit under which this share of the requests between two readings lies.
function quantile(before, after, share) {
    const limits = [...after.keys()].sort((a, b) => a - b);
    const count = (limit) => after.get(limit) - (before.get(limit) ?? 0);
    const all = count(Infinity);
    const limit = limits.find((l) => count(l) >= share * all);
    if (all === 0 || limit === undefined) {
        return "-";
    }
    return limit === Infinity ? "over 5 s" : `${limit * 1000} ms`;
}

const load = [];
let previous = null;

async function showLive() {
    const samples = parseMetrics(await (await fetch("/metrics")).text());
    const now = {
        time: performance.now(),
        requests: total(samples, "rp_http_requests_total"),
        windows: total(samples, "rp_batch_windows_sum"),
        batches: total(samples, "rp_batch_windows_count"),
        buckets: buckets(samples),
    };
    byId("memory").textContent =
        `${(total(samples, "process_resident_memory_bytes") / 1048576).toFixed(0)} MB`;
    if (previous) {
        const rate = (now.requests - previous.requests) / (now.time - previous.time) * 1000;
        const batches = now.batches - previous.batches;
        byId("rate").textContent = rate.toFixed(1);
        byId("p50").textContent = quantile(previous.buckets, now.buckets, 0.5);
        byId("p99").textContent = quantile(previous.buckets, now.buckets, 0.99);
        byId("batch").textContent =
            batches > 0 ? ((now.windows - previous.windows) / batches).toFixed(1) : "-";
        load.push([new Date(), rate]);
        if (load.length > 150) {
            load.shift();
        }
        if (load.length > 1) {
            draw("load", load, {
                labels: ["time", "requests per second"],
                colors: [colour("--accent")],
                includeZero: true,
                fillGraph: true,
            });
        }
    }
    previous = now;
}

async function pollLive() {
    try {
        if (!document.hidden) {
            await showLive();
        }
    } catch (error) {
        byId("rate").textContent = "not reachable";
        previous = null;
    }
    setTimeout(pollLive, 2000);
}

for (const section of document.querySelectorAll(".interactive")) {
    section.hidden = false;
}
byId("choice").addEventListener("submit", (event) => event.preventDefault());
byId("ticker").addEventListener("change", showTicker);
byId("days").addEventListener("change", () => shown && drawTicker(shown, Number(byId("days").value)));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change",
    () => shown && drawTicker(shown, Number(byId("days").value)));
showTicker();
pollLive();
