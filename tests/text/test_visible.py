from mengya.text.visible import visible


def test_nothing_steers_a_terminal_and_text_stays() -> None:
    assert visible("\x1b[31m红\x07\r\x00\x7f") == "␛[31m红␇␍␀␡"
    assert visible("a\u202eb\u2066\u200f\ufeff\x9b") == "a<U+202E>b<U+2066><U+200F><U+FEFF><U+009B>"
    assert visible("行\n\t🙂 [bold]") == "行\n\t🙂 [bold]"
    assert visible("\ud800") == "?"
