/**
 * One reply on the screen: takes a `Reply` and whether it is still being made, gives an element:
 * thinking (folded), text, tool calls, a form for what they gave, what went wrong, counts and
 * actions. Knows nothing of the conversation around it.
 */
import { append, copyButton, el, icon, iconButton } from "../kit/dom.js";
import { codeWords, problemWords, short, t } from "../kit/i18n.js";
import { LiveMarkdown } from "../markdown/markdown.js";
import { speed } from "./answer.js";
import { editor } from "./editor.js";

/** @typedef {import("../store/conversation.js").Reply} Reply */

/**
 * ‹ 1/2 ›
 * @param {number} index from 0
 * @param {number} count
 * @param {(index: number) => void} choose
 */
export function switcher(index, count, choose) {
  if (count < 2) return null;
  const back = iconButton("back", t("previousBranch"), () => choose(index - 1));
  const forth = iconButton("forth", t("nextBranch"), () => choose(index + 1));
  back.toggleAttribute("disabled", index === 0);
  forth.toggleAttribute("disabled", index === count - 1);
  const place = el(
    "span",
    { "aria-label": t("branch", { index: index + 1, count }) },
    `${index + 1}/${count}`,
  );
  return el("span", { class: "switcher" }, back, place, forth);
}

/**
 * Frames of a growing text are drawn at most this often, and never more than a sixth of the time.
 * Milliseconds.
 */
const FRAME = 40;

export class ReplyView {
  /**
   * @param {Reply} reply
   * @param {{again: () => void, more: (() => void) | null, rewrite: (text: string) => void, remove:
   *   (() => void) | null, choose: (index: number) => void, index: number, count: number, limit:
   *   number | null, drawn: () => void, giveResults: ((results:
   *   import("../store/conversation.js").ToolResult[]) => void) | null}} actions `more` continues the
   *   reply, `drawn` is called when the element has grown, `giveResults` with what somebody says that
   *   the calls gave; `limit` is the model's context
   */
  constructor(reply, actions) {
    this.reply = reply;
    this.actions = actions;
    this.running = false;
    this.pause = FRAME;
    /** @type {ReturnType<typeof setTimeout> | null} */
    this.timer = null;
    this.summary = el("summary");
    const thoughts = el("div", { class: "markdown" });
    this.thinking = el("details", { class: "thinking" }, this.summary, thoughts);
    this.text = el("div", { class: "markdown" });
    this.tools = el("div", { class: "tool-calls" });
    this.foot = el("div", { class: "reply-foot" });
    this.element = el(
      "article",
      { class: "reply", "aria-label": reply.model },
      el("div", { class: "reply-model" }, reply.model),
      this.thinking,
      this.text,
      this.tools,
      this.foot,
    );
    this.liveThoughts = new LiveMarkdown(thoughts);
    this.liveText = new LiveMarkdown(this.text);
  }

  /** Draws soon; many calls make one drawing. */
  schedule() {
    this.timer ??= setTimeout(() => this.draw(), this.pause);
  }

  /** @param {boolean} [running] */
  draw(running = this.running) {
    if (this.timer) clearTimeout(this.timer);
    this.timer = null;
    const began = performance.now();
    this.running = running;
    const { reply } = this;
    this.element.setAttribute("aria-busy", String(running));
    this.element.classList.toggle(
      "waiting",
      running && !reply.content && !reply.reasoning && !reply.toolCalls.length,
    );
    this.thinking.hidden = !reply.reasoning;
    if (reply.reasoning) this.drawThinking();
    this.text.classList.toggle("growing", running);
    if (this.liveText.text !== reply.content) this.liveText.update(reply.content);
    this.tools.replaceChildren(...reply.toolCalls.map(toolCall));
    this.foot.replaceChildren();
    if (!running) this.drawFoot();
    this.actions.drawn();
    this.pause = Math.max(FRAME, 6 * (performance.now() - began));
  }

  drawThinking() {
    const { reply } = this;
    const still = this.running && !reply.content && !reply.toolCalls.length;
    const seconds = reply.thinkingSeconds;
    const done = seconds === null ? t("thoughtPlain") : t("thought", { seconds: short(seconds) });
    this.summary.textContent = still ? t("thinking") : done;
    if (this.liveThoughts.text !== reply.reasoning) this.liveThoughts.update(reply.reasoning);
  }

  drawFoot() {
    const { reply, actions } = this;
    if (reply.toolCalls.length && actions.giveResults) {
      append(this.foot, [resultsForm(reply.toolCalls, actions.giveResults)]);
    }
    const words = ending(reply, actions.limit);
    const more = actions.more && canContinue(reply) && el(
      "button",
      { type: "button", class: "quiet", onclick: actions.more },
      icon("more"),
      t("continueAnswer"),
    );
    if (words) append(this.foot, [el("p", { class: "note" }, words)]);
    if (reply.problem) append(this.foot, [problemBox(reply.problem, actions.again)]);
    append(this.foot, [more]);
    const bar = el(
      "div",
      { class: "actions" },
      switcher(actions.index, actions.count, actions.choose),
      copyButton(t("copy"), () => reply.content),
      reply.content && iconButton("edit", t("editAnswer"), () => this.edit()),
      iconButton("again", t("regenerate"), actions.again),
      actions.remove && iconButton("trash", t("removeAnswer"), actions.remove),
      el("span", { class: "counts" }, countsOf(reply)),
    );
    append(this.foot, [bar]);
  }

  edit() {
    const cancel = () => {
      this.text.hidden = false;
      this.draw();
    };
    this.text.hidden = true;
    this.foot.replaceChildren(
      editor(this.reply.content, {
        label: t("editAnswer"),
        done: t("keepEdited"),
        finish: this.actions.rewrite,
        cancel,
        lines: true,
      }),
    );
  }
}

/** @param {Reply} reply */
function countsOf(reply) {
  const rate = speed(reply);
  const counts = [
    reply.completionTokens !== null && t("tokens", { count: reply.completionTokens }),
    rate !== null && t("speed", { speed: short(rate) }),
    reply.firstSeconds !== null && t("first", { seconds: short(reply.firstSeconds) }),
    reply.promptTokens !== null && t("promptTokens", { count: reply.promptTokens }),
  ];
  return counts.filter(Boolean).join(" · ");
}

/** Whether the model may write on where a reply ends. @param {Reply} reply */
function canContinue(reply) {
  return reply.content && !reply.toolCalls.length && (reply.edited || reply.finish !== "stop");
}

/**
 * @param {import("../kit/server.js").Problem} problem
 * @param {() => void} again
 */
function problemBox(problem, again) {
  const words = problem.kind !== "offline" && problem.detail;
  const detail = words && el("p", { class: "detail" }, words);
  // What the words above say already, in the language of the page.
  const folded = words && el("details", {}, el("summary", {}, t("serverSaid")), detail);
  const retry = el("button", { type: "button", class: "quiet", onclick: again }, icon("again"), t("retry"));
  const said = el("p", {}, problemWords(problem));
  return el(
    "div",
    { class: "problem", role: "alert" },
    said,
    codeWords(problem) ? folded : detail,
    retry,
  );
}

/**
 * How a reply that did not fail ended, where that needs saying.
 * @param {Reply} reply
 * @param {number | null} limit
 */
function ending(reply, limit) {
  if (reply.problem) return null;
  if (reply.edited) return t("edited");
  if (reply.finish === "length") {
    const used = (reply.promptTokens ?? 0) + (reply.completionTokens ?? 0);
    return limit !== null && used >= limit ? t("contextEnd", { limit }) : t("reachedLimit");
  }
  if (reply.finish === null) return t("stoppedHere");
  return reply.content || reply.reasoning || reply.toolCalls.length ? null : t("emptyReply");
}

/** @param {import("../store/conversation.js").ToolCall} call */
function toolCall(call) {
  let shown = call.arguments;
  try {
    shown = JSON.stringify(JSON.parse(call.arguments), null, 2);
  } catch {
    // Not complete yet, or the model wrote no JSON: as it is.
  }
  const head = el(
    "div",
    { class: "tool-head" },
    icon("braces"),
    el("span", {}, t("toolCall")),
    el("code", {}, call.name),
  );
  return el("div", { class: "tool-call" }, head, el("pre", { tabindex: 0 }, shown));
}

/**
 * A field for what each call gave: the page runs no tools, the reader may.
 * @param {import("../store/conversation.js").ToolCall[]} calls
 * @param {(results: import("../store/conversation.js").ToolResult[]) => void} give
 */
function resultsForm(calls, give) {
  const areas = calls.map((call) => {
    const label = t("toolResult", { name: call.name });
    const attributes = { rows: 2, class: "mono", required: true, "aria-label": label, placeholder: label };
    return /** @type {HTMLTextAreaElement} */ (el("textarea", attributes));
  });
  const form = el(
    "form",
    { class: "tool-results" },
    ...areas,
    el("button", { class: "primary" }, t("sendResults")),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    give(calls.map((call, index) => ({ id: call.id, name: call.name, content: areas[index].value })));
  });
  return form;
}
