from mengya.config import Config
class TokenizerCompareConfig(Config):
    tokenizers: list[str] = []
    tokenizer: str = ""
def run(c): print(c)
