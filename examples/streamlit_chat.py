"""A chat page in Streamlit that talks to mengya's API, for those who build their pages with it.

    pip install streamlit openai
    mengya serve runs/my/sft
    streamlit run examples/streamlit_chat.py

MENGYA_URL (default http://127.0.0.1:8000/v1) says where the server is, MENGYA_API_KEY its key.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import openai
import streamlit as st  # type: ignore[import-not-found]

client = openai.OpenAI(
    base_url=os.environ.get("MENGYA_URL", "http://127.0.0.1:8000/v1"),
    api_key=os.environ.get("MENGYA_API_KEY", "none"),
)


def pieces(messages: list[Any], **settings: Any) -> Iterator[str]:
    """The reply as it comes; reasoning goes into a box of its own."""
    box, reasoning = None, ""
    for chunk in client.chat.completions.create(messages=messages, stream=True, **settings):
        if not chunk.choices:
            continue
        delta = chunk.choices[0].delta
        if thought := (delta.model_extra or {}).get("reasoning_content"):
            if box is None:
                box = st.expander("思考", expanded=True).empty()
            reasoning += thought
            box.text(reasoning)
        if delta.content:
            yield delta.content


st.set_page_config(page_title="萌芽", page_icon="🌱")
st.title("🌱 萌芽")

with st.sidebar:
    names: list[str] = []
    try:
        names += [card.id for card in client.models.list()]
    except openai.OpenAIError as error:
        st.error(
            f"没有连上服务器 {client.base_url}：{error}。先在另一个终端运行 mengya serve runs/my/sft"
        )
        st.stop()
    model = st.selectbox("模型", names)
    temperature = st.slider("temperature", 0.0, 2.0, 0.8, 0.05)
    top_p = st.slider("top_p", 0.05, 1.0, 0.95, 0.05)
    system = st.text_area("系统提示")
    if st.button("新对话"):
        st.session_state.pop("turns", None)

turns: list[dict[str, str]] = st.session_state.setdefault("turns", [])
for turn in turns:
    st.chat_message(turn["role"]).write(turn["content"])

if text := st.chat_input("说点什么"):
    turns.append({"role": "user", "content": text})
    st.chat_message("user").write(text)
    opening = [{"role": "system", "content": system}] if system else []
    with st.chat_message("assistant"):
        try:
            answer = st.write_stream(
                pieces([*opening, *turns], model=model, temperature=temperature, top_p=top_p)
            )
        except openai.OpenAIError as error:
            st.error(str(error))
            turns.pop()
        else:
            turns.append({"role": "assistant", "content": str(answer)})
