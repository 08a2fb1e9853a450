/**
 * Words that every page needs. `{name}` is filled in by i18n.js; a page may replace one by a word
 * of its own.
 */

/** @type {Record<string, string>} */
export const EN = {
  ok: "OK",
  cancel: "Cancel",
  keyTitle: "An API key is needed",
  keyNote: "The server asks for a key, set by whoever started it. It is kept until this tab closes.",
  keyLabel: "API key",
  waitSeconds: "Try again in {seconds} s.",
  waitLittle: "Try again in a moment.",
  problem_unauthorized: "The key was not accepted. Trying again asks for it.",
  problem_busy: "The server is busy and its queue is full. {wait}",
  problem_loading: "The server is starting or shutting down. {wait}",
  problem_notFound: "The server has no such address. Reload the page.",
  problem_tooLarge: "That is too large to send.",
  problem_refused: "The server does not accept this request:",
  problem_server: "The server failed. Try again; if it fails again, look at its log.",
  problem_offline: "The server cannot be reached. Check that it is running, then try again.",
  problem_broken: "The connection broke before the answer ended. You can try again.",
  problem_storage: "The browser's storage for this page is full.",
  code_invalid_value_of: "{param} has a value that cannot be used.",
  code_unknown_parameter_of: "It does not know {param}.",
  code_missing_required_parameter_of: "{param} is missing.",
};

/** @type {Record<string, string>} */
export const ZH = {
  ok: "确定",
  cancel: "取消",
  keyTitle: "需要 API 密钥",
  keyNote: "服务器要求密钥，由启动者设置。密钥只保存在当前标签页，关闭即清除。",
  keyLabel: "API 密钥",
  waitSeconds: "请在 {seconds} 秒后重试。",
  waitLittle: "请稍后重试。",
  problem_unauthorized: "密钥不正确。重试时会重新询问。",
  problem_busy: "服务器繁忙，等待队列已满。{wait}",
  problem_loading: "服务器正在启动或关闭。{wait}",
  problem_notFound: "服务器上没有这个地址。请刷新页面。",
  problem_tooLarge: "发送的内容过大。",
  problem_refused: "服务器拒绝了这个请求：",
  problem_server: "服务器出错。请重试；若仍失败，请查看服务器日志。",
  problem_offline: "无法连接服务器。请确认它仍在运行，然后重试。",
  problem_broken: "回答结束前连接中断，可以重试。",
  problem_storage: "浏览器分配给本页面的存储空间已满。",
  code_invalid_value_of: "{param} 的值不合要求。",
  code_unknown_parameter_of: "服务器不支持 {param}。",
  code_missing_required_parameter_of: "缺少 {param}。",
};
