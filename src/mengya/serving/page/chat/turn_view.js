/**
 * One turn on the screen: the question, which can be edited, and its replies side by side. Takes a
 * turn and what to do on each action; gives an element and the views of its replies.
 */
import { copyButton, el, icon, iconButton } from "../kit/dom.js";
import { t } from "../kit/i18n.js";
import { shownReply, siblings } from "../store/conversation.js";
import { editor } from "./editor.js";
import { ReplyView, switcher } from "./reply_view.js";

/** @typedef {import("../store/conversation.js").Turn} Turn */
/** @typedef {import("../store/conversation.js").Reply} Reply */
/**
 * `more` where a reply may be continued, `giveResults` where calls may be answered.
 * @typedef {{edit: (turn: Turn, text: string) => void, again: (lane: number) => void, more: ((lane:
 *   number) => void) | null, rewrite: (lane: number, text: string) => void, removeTurn: () => void,
 *   removeReply: (lane: number) => void, chooseTurn: (turn: Turn) => void, chooseReply: (lane:
 *   number, index: number) => void, drawn: () => void, contextOf: (model: string) => number | null,
 *   giveResults: ((results: import("../store/conversation.js").ToolResult[]) => void) | null}}
 *   TurnActions
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
    const { more } = actions;
    const view = new ReplyView(reply, {
      again: () => actions.again(lane),
      more: more && (() => more(lane)),
      rewrite: (text) => actions.rewrite(lane, text),
      remove: replies.length > 1 ? () => actions.removeReply(lane) : null,
      choose: (index) => actions.chooseReply(lane, index),
      index: turn.chosen[lane],
      count: replies.length,
      limit: actions.contextOf(reply.model),
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
        el("div", { class: "tool-head" }, icon("braces"), t("toolResult", { name })),
        el("pre", { tabindex: 0 }, content),
      ),
    );
    const remove = iconButton("trash", t("removeExchange"), actions.removeTurn);
    place.replaceChildren(...given, el("div", { class: "actions" }, switches(), remove));
    return place;
  }
  const edit = () =>
    place.replaceChildren(
      editor(turn.question, {
        label: t("edit"),
        done: t("editSend"),
        finish: (text) => actions.edit(turn, text),
        cancel: show,
      }),
    );
  const show = () => {
    const bar = el(
      "div",
      { class: "actions" },
      switches(),
      copyButton(t("copy"), () => turn.question),
      iconButton("edit", t("edit"), edit),
      iconButton("trash", t("removeExchange"), actions.removeTurn),
    );
    place.replaceChildren(el("div", { class: "bubble", "aria-label": t("you") }, turn.question), bar);
  };
  show();
  return place;
}
