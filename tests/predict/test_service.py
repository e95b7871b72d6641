"""The service, asked well, badly, slowly and far too much."""

import contextlib
import json
import re
import select
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from rollingq_jax.predict.items import item_of


@pytest.fixture(scope="module")
def files(clips):
  return {
    "audio": (clips / "clip00.wav").read_bytes(),
    "visual": (clips / "clip00.png").read_bytes(),
  }


@pytest.fixture
def dial(service):
  """() -> a socket that is connected to the service."""
  with contextlib.ExitStack() as stack:

    def connect():
      address = ("127.0.0.1", service.port)
      return stack.enter_context(socket.create_connection(address, 60))

    yield connect


def hear(line):
  """All that comes until the other side ends it."""
  heard = b""
  with contextlib.suppress(ConnectionResetError):
    while chunk := line.recv(1 << 16):
      heard += chunk
  return heard


HEAD = (
  b"POST /predict HTTP/1.1\r\nhost: localhost\r\n"
  b"content-type: multipart/form-data; boundary=edge\r\n"
)
PART = (
  b'--edge\r\ncontent-disposition: form-data; name="clip"; filename="a"\r\n\r\n'
)


def test_two_hundred_requests_from_sixteen_clients(
  service, clips, predictor, make_form
):
  names = [f"clip{x:02d}" for x in range(16) if x not in (11, 15)]
  expected = {}
  for name in names:
    item = item_of(name, clips / f"{name}.wav", clips / f"{name}.png")
    (expected[name],) = predictor([item])
  before = service.count("rollingq_batch_size_sum")
  batches = service.count("rollingq_batch_size_count")

  def ask(number):
    name = names[number % len(names)]
    audio, visual = (
      (clips / f"{name}.{ending}").read_bytes() for ending in ("wav", "png")
    )
    return name, service.upload(audio=audio, visual=visual)

  with ThreadPoolExecutor(16) as clients:
    answers = list(clients.map(ask, range(200)))
  assert len(answers) == 200
  for name, (status, answer) in answers:
    assert status == 200
    assert answer["label"] == expected[name].label
    assert answer["probability"] == pytest.approx(
      expected[name].probability, abs=1e-5
    )
    assert answer["attention_share"] == pytest.approx(
      expected[name].attention_share, abs=1e-5
    )
  assert service.count("rollingq_batch_size_sum") - before == 200
  # Clips were put together.
  assert service.count("rollingq_batch_size_count") - batches < 200
  assert service.count("rollingq_requests_in_work") == 0
  assert not list(service.folder.glob("rollingq-*/*"))


def test_a_whole_clip_is_one_file(service, files, write_video, tmp_path):
  film = write_video(tmp_path / "a.mp4").read_bytes()
  status, answer = service.upload(clip=film)
  assert (status, answer["warnings"]) == (200, ["audio is missing"])
  status, answer = service.upload(clip=files["audio"])
  assert (status, answer["warnings"]) == (200, ["visual is missing"])
  assert answer["clip"] == "clip"


@pytest.mark.parametrize(
  ("fields", "status", "said"),
  [
    ({"clip": b"%PDF-1.4 no clip"}, 422, "expected sound, video, an image"),
    ({"clip": b""}, 422, "is empty"),
    ({"clip": b"RIFF____WAVEfmt "}, 422, "cannot be read"),
    ({"audio": b"\x93NUMPY\x01\x00torn"}, 422, "not a NumPy array file"),
    ({"clip": b"PK\x03\x04torn"}, 422, "not an .npz"),
    ({}, 422, "neither audio nor visual"),
    ({"clip": b""}, 422, "clip is empty; expected sound, video, an image"),
    (
      {"sound": b"x"},
      422,
      "no file may be called 'sound'; files are clip, audio, visual",
    ),
    ({"../../x": b"x"}, 422, "no file may be called '../../x'"),
    ({"text": "hello"}, 422, "no text may be called 'text'"),
    ({"clip": b"x", "audio": b"y"}, 422, "expected sound"),
  ],
)
def test_what_is_no_clip(service, fields, status, said):
  found, answer = service.upload(**fields)
  assert (found, said in answer["detail"]) == (status, True), answer
  assert "none" not in answer["detail"]
  assert str(service.folder) not in answer["detail"]
  assert service.ask("/health")[0] == 200


def test_playlists_lead_to_no_file_of_the_server(service, clips):
  lists = [
    f"#EXTM3U\n#EXTINF:1,\n{clips / 'clip00.wav'}\n#EXT-X-ENDLIST\n",
    f"ffconcat version 1.0\nfile {clips / 'clip00.wav'}\n",
    "#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
  ]
  for text in lists:
    status, answer = service.upload(clip=text.encode())
    assert (status, "cannot be read" in answer["detail"]) == (422, True)


@pytest.mark.parametrize(
  ("kind", "body", "status", "said"),
  [
    ("application/json", b"{}", 415, "expected multipart/form-data"),
    ("", b"", 415, "not stated"),
    ("multipart/form-data", b"", 400, "no boundary"),
    ("multipart/form-data; boundary=edge", b"", 400, "last boundary"),
    ("multipart/form-data; boundary=edge", b"nothing", 400, "malformed"),
    ("multipart/form-data; boundary=edge", PART + b"cut", 400, "last boundary"),
    ("multipart/form-data; boundary=edge", b"--edge\r\n\r\nx\r\n--edge--\r\n",
     400, "no name"),
    ("multipart/form-data; boundary=" + "x" * 999, b"", 400, "malformed"),
    ("multipart/form-data; boundary=edge", b"--edge\r\n" + b"a" * 9999, 400,
     "malformed"),
  ],
)  # fmt: skip
def test_malformed_forms(service, kind, body, status, said):
  found, _, content = service.ask("/predict", body, content_type=kind)
  assert found == status
  assert said in json.loads(content)["detail"]
  assert service.ask("/health")[0] == 200


def test_fields_that_are_there_twice(service, files, make_form):
  once = make_form(audio=files["audio"])
  body = once.removesuffix(b"--edge--\r\n") + once
  status, _, content = service.ask(
    "/predict", body, content_type="multipart/form-data; boundary=edge"
  )
  assert (status, b"twice" in content) == (422, True)


@pytest.mark.parametrize(
  "name",
  ["../../etc/passwd", "/etc/passwd", "C:\\x", "a\0b", "x" * 3000, "ä\u202e"],
)
def test_names_of_files_are_not_looked_at(service, files, name):
  status, answer = service.upload(
    audio=(name, files["audio"]), visual=files["visual"]
  )
  assert (status, answer["label"]) == (200, "low")
  assert not list(service.folder.glob("rollingq-*/*"))


@pytest.mark.parametrize(
  "path",
  [
    "/../etc/passwd",
    "/..%2f..%2fetc/passwd",
    "/%2e%2e/%2e%2e/etc/passwd",
    "//etc/passwd",
    "/page.css/../../page.py",
    "/page.css%00",
    "/templates/page.css",
    "/static/../app.py",
  ],
)
def test_no_path_leads_to_a_file(service, path):
  assert service.ask(path)[0] == 404


def test_a_gigabyte_is_refused_at_its_beginning(service, dial):
  before = service.peak_memory()
  line, sent = dial(), 0
  line.sendall(HEAD + b"transfer-encoding: chunked\r\n\r\n")
  block = b"%x\r\n%s\r\n"
  line.sendall(block % (len(PART), PART))
  block %= (1 << 16, bytes(1 << 16))
  with contextlib.suppress(ConnectionError):
    while sent < 1 << 30 and not select.select([line], [], [], 0)[0]:
      line.sendall(block)
      sent += 1 << 16
  answer = hear(line)
  assert answer.startswith(b"HTTP/1.1 413 ")
  assert b"more than 2 MB" in answer
  # What is on its way when the answer comes.
  assert sent < 100_000_000
  assert service.peak_memory() - before < 50_000_000
  assert not list(service.folder.glob("rollingq-*/*"))


def test_a_stated_gigabyte_is_refused_unread(service, dial):
  line = dial()
  line.sendall(HEAD + b"content-length: 1000000000\r\n\r\n")
  assert hear(line).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
  "begun", [b"", b"POST /predict HT", HEAD], ids=["nothing", "half", "head"]
)
def test_heads_that_do_not_end(dial, begun):
  line = dial()
  line.sendall(begun)
  assert hear(line).startswith(b"HTTP/1.1 408 ")


def test_uploads_that_stop(dial):
  line = dial()
  line.sendall(HEAD + b"content-length: 10000\r\n\r\n" + PART)
  answer = hear(line)
  assert answer.startswith(b"HTTP/1.1 408 ")
  assert b"without a byte" in answer


def test_uploads_that_drip(dial):
  line = dial()
  line.sendall(HEAD + b"content-length: 10000\r\n\r\n" + PART)
  # A byte every fifth of a second is never idle.
  while not select.select([line], [], [], 0.2)[0]:
    line.sendall(b"x")
  assert hear(line).startswith(b"HTTP/1.1 408 ")


def test_further_requests_are_sent_away(service, dial, files, make_form):
  lines = [dial() for _ in range(20)]
  for line in lines:
    line.sendall(HEAD + b"content-length: 10000\r\n\r\n" + PART)
  in_work = 0.0
  while in_work < 20:
    in_work = service.count("rollingq_requests_in_work")
  status, headers, content = service.ask(
    "/predict",
    make_form(audio=files["audio"]),
    content_type="multipart/form-data; boundary=edge",
  )
  assert (status, headers["retry-after"]) == (503, "1")
  assert b"20 clips are in work" in content
  for line in lines:
    line.close()
  while in_work:
    in_work = service.count("rollingq_requests_in_work")
  assert service.upload(audio=files["audio"])[0] == 200


def test_others_that_call_themselves_this_machine(service):
  assert service.ask("/health", host="evil.example")[0] == 400
  assert service.ask("/health", host="localhost:1")[0] == 200


def test_health_says_what_answers(service):
  status, _, content = service.ask("/health")
  assert (status, json.loads(content)) == (
    200,
    {
      "status": "ok",
      "model": "toy",
      "modalities": ["audio", "visual"],
      "class_names": ["high", "low"],
    },
  )


def test_pages_ask_nothing_of_others(service):
  for path in ("/", "/docs", "/page.css", "/page.js", "/openapi.json"):
    status, headers, content = service.ask(path)
    assert status == 200
    assert not re.findall(rb"(?:https?:)?//[a-z]", content), path
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert headers["x-content-type-options"] == "nosniff"


def test_the_description_names_what_can_be_asked(service):
  schema = json.loads(service.ask("/openapi.json")[2])
  assert set(schema["paths"]) == {"/predict", "/health", "/metrics"}
  post = schema["paths"]["/predict"]["post"]
  assert {"200", "400", "408", "413", "415", "422", "503"} <= set(
    post["responses"]
  )
  (body,) = post["requestBody"]["content"].values()
  assert set(body["schema"]["properties"]) == {"clip", "audio", "visual"}


def test_nothing_is_left_when_it_ends(start_service, files):
  service = start_service()
  assert service.upload(audio=files["audio"])[0] == 200
  assert list(service.folder.glob("rollingq-*"))
  service.process.terminate()
  service.process.wait(30)
  assert not list(service.folder.glob("rollingq-*"))
