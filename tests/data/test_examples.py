"""Examples are values."""

from fedloom.data.examples import Generation, Message


def test_a_generation_is_a_prompt_and_its_answer():
    chat = Generation((Message("system", "Be brief."), Message("user", "Why?"), Message("assistant", "Because.")))
    assert chat.prompt_messages == (Message("system", "Be brief."), Message("user", "Why?"))
    assert chat.response == "Because."
    assert hash(chat) == hash(Generation(chat.messages))
