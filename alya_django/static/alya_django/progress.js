// Moves the figures of batches without reload. It changes texts and bars that the server has rendered, and nothing
// else: no form, no link. A page that is about one thing, and has no form, is loaded anew when that has ended.
// Without it, every page is whole.

const FIRST_MS = 2000;
const SLOWEST_MS = 15000;
const FAILED_MS = 4000;
const FAILED_SLOWEST_MS = 60000;
const ANNOUNCE_MS = 10000;
const SWITCH = "alya-live";

const panel = document.querySelector("[data-alya-live]");
const button = panel?.querySelector("button");
if (button) {
    start(panel, button, panel.querySelector("[role=status]"));
}

function start(panel, button, status) {
    let timer = null;
    let request = null;
    let pause = FIRST_MS;
    let failedPause = FAILED_MS;
    let lastBody = "";
    let lastAnswer = new Date();
    let announcedAt = 0;
    let hasEnded = false;

    const isOn = () => button.getAttribute("aria-pressed") === "true";
    const running = () => [...document.querySelectorAll("[data-alya-final=no]")].map((badge) => badge.dataset.alyaBatch);

    function plan(ms) {
        clearTimeout(timer);
        timer = null;
        if (isOn() && !document.hidden && running().length) {
            timer = setTimeout(ask, ms);
        }
    }

    function rest() {
        clearTimeout(timer);
        timer = null;
        request?.abort();
        request = null;
    }

    async function ask() {
        const mine = (request = new AbortController());
        try {
            const response = await fetch(`${panel.dataset.address}?ids=${running().join(",")}`, {
                signal: mine.signal,
                headers: { Accept: "application/json" },
                redirect: "error",
            });
            if (!response.ok) {
                throw new Error(String(response.status));
            }
            const body = await response.text();
            if (mine === request) {
                take(body);
            }
        } catch {
            if (mine === request) {
                status.textContent = panel.dataset.lost.replace("%s", lastAnswer.toLocaleTimeString());
                plan(failedPause);
                failedPause = Math.min(failedPause * 2, FAILED_SLOWEST_MS);
            }
        }
    }

    function take(body) {
        const { batches } = JSON.parse(body);
        for (const id of running()) {
            show(id, batches[id] ?? { final: true });
        }
        lastAnswer = new Date();
        failedPause = FAILED_MS;
        pause = body === lastBody ? Math.min(pause * 1.5, SLOWEST_MS) : FIRST_MS;
        lastBody = body;
        status.textContent = hasEnded ? panel.dataset.ended : "";
        if (hasEnded && "alyaReload" in panel.dataset) {
            location.reload();
        }
        plan(pause);
    }

    function show(id, batch) {
        for (const element of document.querySelectorAll(`[data-alya-batch="${id}"]`)) {
            const { alyaText, alyaFinal } = element.dataset;
            if (alyaFinal) {
                element.dataset.alyaFinal = batch.final ? "yes" : "no";
                element.dataset.alyaLook = batch.look ?? element.dataset.alyaLook;
            } else if (element.tagName === "PROGRESS") {
                element.max = batch.max ?? element.max;
                element.value = batch.value ?? element.value;
            } else if (alyaText && batch.texts && element.textContent !== batch.texts[alyaText]) {
                element.textContent = batch.texts[alyaText];
            }
        }
        hasEnded ||= batch.final;
        announce(id, batch);
    }

    function announce(id, { texts, final }) {
        const place = document.querySelector(`[data-alya-announce="${id}"]`);
        if (place && texts && (final || Date.now() - announcedAt >= ANNOUNCE_MS)) {
            announcedAt = Date.now();
            place.textContent = `${texts.state}, ${texts.share}, ${texts.amount}`;
        }
    }

    function turn(on) {
        button.setAttribute("aria-pressed", String(on));
        button.textContent = on ? panel.dataset.on : panel.dataset.off;
        rest();
        pause = FIRST_MS;
        plan(on ? 0 : FIRST_MS);
    }

    button.addEventListener("click", () => {
        turn(!isOn());
        remember(isOn());
    });
    document.addEventListener("visibilitychange", () => (document.hidden ? rest() : plan(0)));
    window.addEventListener("pagehide", rest);
    window.addEventListener("pageshow", (event) => event.persisted && plan(0));

    button.hidden = false;
    turn(remembered());
}

function remembered() {
    try {
        return localStorage.getItem(SWITCH) !== "off";
    } catch {
        return true;
    }
}

function remember(isOn) {
    try {
        localStorage.setItem(SWITCH, isOn ? "on" : "off");
    } catch {
        // Storage that is refused forgets the choice, and nothing else.
    }
}
