from mengya.config import Config
class TokenizerCountConfig(Config):
    tokenizers: list[str] = []
    tokenizer: str = ""
def run(c): print(c)
