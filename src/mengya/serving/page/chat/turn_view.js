/**
 * One turn on the screen: the question, which can be edited, and its replies side by side. Takes a
 * turn and what to do on each action; gives an element and the views of its replies.
 */
import { copyButton, el, icon, iconButton } from "../kit/dom.js";
import { t } from "../kit/i18n.js";
import { entersLine } from "../kit/keys.js";
import { shownReply, siblings } from "../store/conversation.js";
import { ReplyView, switcher } from "./reply_view.js";

/** @typedef {import("../store/conversation.js").Turn} Turn */
/** @typedef {import("../store/conversation.js").Reply} Reply */
/**
 * @typedef {{edit: (turn: Turn, text: string) => void, again: (turn: Turn, lane: number) => void,
 *   chooseTurn: (turn: Turn) => void, chooseReply: (turn: Turn, lane: number, index: number) =>
 *   void, drawn: () => void, giveResults: ((results:
 *   import("../store/conversation.js").ToolResult[]) => void) | null}} TurnActions `giveResults`
 *   where calls may be answered
 */

/**
 * @param {import("../store/conversation.js").Conversation} conversation
 * @param {Turn} turn
 * @param {TurnActions} actions
 * @returns {{element: HTMLElement, views: Map<Reply, ReplyView>}}
 */
export function turnView(conversation, turn, actions) {
  /** @type {Map<Reply, ReplyView>} */
  const views = new Map();
  const lanes = turn.replies.map((replies, lane) => {
    const reply = shownReply(turn, lane);
    if (!reply) return el("div", { class: "lane" });
    const view = new ReplyView(reply, {
      again: () => actions.again(turn, lane),
      choose: (index) => actions.chooseReply(turn, lane, index),
      index: turn.chosen[lane],
      count: replies.length,
      drawn: actions.drawn,
      giveResults: actions.giveResults,
    });
    views.set(reply, view);
    return el("div", { class: "lane" }, view.element);
  });
  const element = el(
    "section",
    { class: "turn" },
    question(conversation, turn, actions),
    el("div", { class: lanes.length > 1 ? "lanes two" : "lanes" }, ...lanes),
  );
  return { element, views };
}

/**
 * @param {import("../store/conversation.js").Conversation} conversation
 * @param {Turn} turn
 * @param {TurnActions} actions
 */
function question(conversation, turn, actions) {
  const place = el("div", { class: "question" });
  const versions = siblings(conversation, turn);
  const switches = () => switcher(
    versions.indexOf(turn),
    versions.length,
    (index) => actions.chooseTurn(versions[index]),
  );
  if (turn.results.length) {
    const given = turn.results.map(({ name, content }) =>
      el(
        "div",
        { class: "tool-call" },
        el("div", { class: "tool-head" }, icon("tool"), t("toolResult", { name })),
        el("pre", { tabindex: 0 }, content),
      ),
    );
    place.replaceChildren(...given, el("div", { class: "actions" }, switches()));
    return place;
  }
  const show = () => {
    const bar = el(
      "div",
      { class: "actions" },
      switches(),
      copyButton(t("copy"), () => turn.question),
      iconButton("edit", t("edit"), () => editor(place, turn, actions, show)),
    );
    place.replaceChildren(el("div", { class: "bubble", "aria-label": t("you") }, turn.question), bar);
  };
  show();
  return place;
}

/** @param {HTMLElement} place @param {Turn} turn @param {TurnActions} actions @param {() => void} cancel */
function editor(place, turn, actions, cancel) {
  const area = /** @type {HTMLTextAreaElement} */ (el("textarea", { rows: 3, "aria-label": t("edit") }));
  area.value = turn.question;
  const send = () => area.value.trim() && actions.edit(turn, area.value);
  area.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      event.stopPropagation();
      cancel();
    } else if (entersLine(event)) {
      event.preventDefault();
      send();
    }
  });
  const buttons = el(
    "div",
    { class: "row end" },
    el("button", { type: "button", class: "quiet", onclick: cancel }, t("cancel")),
    el("button", { type: "button", class: "primary", onclick: send }, t("editSend")),
  );
  place.replaceChildren(el("div", { class: "editor" }, area, buttons));
  area.focus();
}
