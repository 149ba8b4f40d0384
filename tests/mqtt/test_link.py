"""The connection: lost and found again, refused, encrypted."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import ssl
import subprocess

import aiomqtt
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_assistant.config import MqttSettings
from edge_assistant.errors import BrokerLoginError, InvalidValueError, SecretFileError
from edge_assistant.mqtt import bridge as bridge_module
from edge_assistant.mqtt import link as link_module
from edge_assistant.mqtt.broker import Address
from edge_assistant.mqtt.link import Backoff, Link
from edge_assistant.mqtt.topics import Topics


@given(st.floats(0.01, 10), st.floats(10, 100), st.integers(1, 60))
def test_the_waits_double_up_to_the_longest_and_are_never_short(shortest, longest, failures):
    backoff = Backoff(shortest, longest)
    waits = [backoff.next() for _ in range(failures)]
    for number, wait in enumerate(waits):
        full = min(longest, shortest * 2**number)
        assert full / 2 <= wait <= full
    backoff.reset()
    assert backoff.next() <= shortest


async def test_it_comes_back_when_the_broker_does_and_answers_what_arrives_then(
    mosquitto, settings, service, person, scripted_model
):
    broker = mosquitto()
    online = await service(scripted_model(lambda text: "yes"), settings(broker.port))
    for times in (2, 3):
        broker.kill()
        broker.start()
        await online.wait(times)
        answer, _ = await (await person(broker.port)).ask("hi")
        assert answer["text"] == "yes"


async def test_an_answer_that_is_ready_while_the_broker_is_gone_waits_for_it(
    mosquitto, settings, service, person, scripted_model
):
    broker = mosquitto()
    model = scripted_model(lambda text: "at last")
    model.gate.clear()
    online = await service(model, settings(broker.port))
    asker = await person(broker.port)
    await asker.tell("assistant/home/ask", "think")
    await asyncio.to_thread(model.started.wait, 10)
    broker.kill()
    model.gate.set()
    broker.start()
    listener = await person(broker.port)
    await online.wait(2)
    answer = json.loads((await listener.hear("assistant/home/answer/+")).payload)
    assert answer["text"] == "at last"


async def test_it_waits_for_a_broker_that_is_not_there_yet(mosquitto, settings, service, person, scripted_model):
    broker = mosquitto()
    broker.kill()
    online = await service(scripted_model(lambda text: "yes"), settings(broker.port), wait=False)
    await asyncio.sleep(0.2)
    broker.start()
    await online.wait()
    answer, _ = await (await person(broker.port)).ask("hi")
    assert answer["status"] == "ok"


async def test_two_nodes_of_one_name_are_told_so(mosquitto, settings, service, scripted_model, caplog):
    broker = mosquitto()
    mqtt = {"reconnect_max_seconds": 5}
    first = await service(scripted_model(lambda text: "yes"), settings(broker.port, mqtt))
    await service(scripted_model(lambda text: "yes"), settings(broker.port, mqtt))
    await first.wait(4)
    wanted = f"127.0.0.1:{broker.port} hangs up on edge-assistant-home again and again: another node may have that name"
    assert wanted in caplog.text


async def test_a_broker_that_goes_now_and_then_is_no_namesake(mosquitto, settings, service, scripted_model, caplog):
    broker = mosquitto()
    online = await service(scripted_model(lambda text: "yes"), settings(broker.port))
    for times in (2, 3, 4, 5):
        await asyncio.sleep(0.3)  # longer than the longest wait between two attempts
        broker.kill()
        broker.start()
        await online.wait(times)
    assert "lost the broker" in caplog.text
    assert "again and again" not in caplog.text


async def test_a_lost_node_is_offline_by_its_will(mosquitto, settings, service, person, scripted_model):
    broker = mosquitto()
    await service(scripted_model(lambda text: "yes"), settings(broker.port, mqtt={"client_id": "node"}))
    someone = await person(broker.port, "assistant/home/state")
    assert (await someone.hear("assistant/home/state")).payload == b"online"
    await person(broker.port, identifier="node")
    assert (await someone.hear("assistant/home/state")).payload == b"offline"


async def test_a_device_that_is_removed_while_we_are_away_is_no_longer_listed(
    mosquitto, settings, service, person, scripted_model, monkeypatch
):
    monkeypatch.setattr(bridge_module, "_RETAINED_SECONDS", 0.1)
    broker, model = mosquitto(), scripted_model(lambda text: "yes")
    someone = await person(broker.port)
    for device in ("lamp", "fan"):
        await someone.tell(f"home/hall/{device}/meta", json.dumps({"domain": device}), retain=True)
    away = {"client_id": "node", "reconnect_min_seconds": 0.5, "reconnect_max_seconds": 0.5}
    online = await service(model, settings(broker.port, mqtt=away))

    async def shown():
        await someone.ask("hi")
        return model.prompts[-1][-1].text

    assert "lamp" in await shown()
    await person(broker.port, identifier="node")  # which ends our connection
    await someone.tell("home/hall/lamp/meta", "", retain=True)
    await online.wait(2)
    async with asyncio.timeout(20):
        while "lamp" in await shown():
            await asyncio.sleep(0.05)
    assert "fan" in await shown()


@contextlib.asynccontextmanager
async def pretending(reply):
    """Serve on a free port what `reply` makes of each packet, None hangs up: for brokers that are not at hand."""

    async def talk(reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                kind, length = await reader.readexactly(2)
                if length > 127:
                    length += 128 * ((await reader.readexactly(1))[0] - 1)
                answer = reply(kind, await reader.readexactly(length))
                if answer is None:
                    break
                writer.write(answer)
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        yield Address("127.0.0.1", server.sockets[0].getsockname()[1])


CONNECT, SUBSCRIBE, PUBLISH, RETAINED = 0x10, 0x82, 0x32, 0x33


async def test_a_broker_that_does_not_know_mqtt_5_is_asked_in_3_1_1():
    def old_broker(kind, body):
        refused = kind == CONNECT and body[6] == 5
        return bytes([0x20, 2, 0, refused]) if kind == CONNECT else b""

    async with pretending(old_broker) as address:
        link = Link(MqttSettings(broker=address.host), address, Topics("home", "home"))
        with pytest.raises(aiomqtt.MqttError, match="Unsupported protocol version"):
            async with link.connected():
                pass
        async with link.connected():
            assert not link.mqtt5


@pytest.mark.parametrize("hangs_up", [False, True])
async def test_a_broker_that_does_not_answer_in_mqtt_5_is_asked_in_3_1_1_and_then_again_in_5(hangs_up, monkeypatch):
    monkeypatch.setattr(link_module, "_ANSWER_SECONDS", 0.2)
    answered = []

    def old_broker(kind, body):
        if kind == CONNECT and body[6] not in answered:
            return None if hangs_up else b""
        return bytes([0x20, 2, 0, 0]) if kind == CONNECT else b""

    async with pretending(old_broker) as address:
        link = Link(MqttSettings(broker=address.host), address, Topics("home", "home"))
        open_files = len(psutil.Process().net_connections())
        for mqtt5 in (True, False, True):
            assert link.mqtt5 is mqtt5
            with pytest.raises(aiomqtt.MqttError, match="timed out"):
                async with link.connected():
                    pass
        answered.append(4)
        async with link.connected():
            assert not link.mqtt5
        await asyncio.sleep(0)
        assert len(psutil.Process().net_connections()) <= open_files + 1  # what `pretending` has of the last


async def test_where_there_is_no_broker_the_next_attempt_is_in_mqtt_5_again(mosquitto):
    broker = mosquitto()
    broker.kill()
    address = Address("127.0.0.1", broker.port)
    link = Link(MqttSettings(broker=address.host), address, Topics("home", "home"))
    with pytest.raises(aiomqtt.MqttError):
        async with link.connected():
            pass
    assert link.mqtt5


async def test_a_topic_that_the_broker_does_not_let_us_read_is_named():
    def strict_broker(kind, body):
        return bytes([0x20, 3, 0, 0, 0]) if kind == CONNECT else bytes([0x90, 4, *body[:2], 0, 0x87])

    async with pretending(strict_broker) as address:
        link = Link(MqttSettings(broker=address.host), address, Topics("home", "home"))
        async with link.connected() as client:
            with pytest.raises(BrokerLoginError, match="may not read assistant/home/ask"):
                await link.subscribe(client)


async def test_a_broker_lost_in_the_middle_of_a_refusal_is_called_again(settings, service, scripted_model):
    connected = []

    def fainting_broker(kind, body):
        if kind == CONNECT:
            connected.append(body)
            return bytes([0x20, 3, 0, 0, 0])
        if kind == SUBSCRIBE:
            return bytes([0x90, 4, *body[:2], 0, 0])
        if b"online" not in body:
            return None
        topic = b"assistant/home/state"
        after = body[2 + len(topic) :]
        empty_question = bytes([0x30, 21, 0, 18]) + b"assistant/home/ask" + bytes([0])
        return bytes([0x40, 2, *after[:2]]) + empty_question

    async with pretending(fainting_broker) as address:
        online = await service(scripted_model(str), settings(address.port))
        await online.wait(3)
    assert len(connected) >= 3


@pytest.fixture
def passwords(tmp_path):
    """Return the path of a Mosquitto password file in which ada's password is secret."""
    if shutil.which("mosquitto_passwd") is None:
        pytest.skip("mosquitto_passwd is not installed: sudo apt install mosquitto")
    path = tmp_path / "passwords"
    subprocess.run(["mosquitto_passwd", "-b", "-c", path, "ada", "secret"], check=True, capture_output=True)
    return path


def secret(tmp_path, text):
    path = tmp_path / "secret"
    path.write_text(text)
    path.chmod(0o600)
    return path


async def test_a_refused_login_is_a_named_error_and_not_tried_again(
    mosquitto, settings, service, passwords, tmp_path, scripted_model
):
    broker = mosquitto(f"allow_anonymous false\npassword_file {passwords}\n")
    wrong = {"username": "ada", "password_file": secret(tmp_path, "wrong")}
    with pytest.raises(BrokerLoginError, match=r"refuses the user 'ada' .*check mqtt\.username"):
        await service(scripted_model(str), settings(broker.port, mqtt=wrong))
    with pytest.raises(BrokerLoginError, match="an anonymous client"):
        await service(scripted_model(str), settings(broker.port))


async def test_a_login_from_a_file_is_let_in(mosquitto, settings, service, person, passwords, tmp_path, scripted_model):
    broker = mosquitto(f"allow_anonymous false\npassword_file {passwords}\n")
    right = {"username": "ada", "password_file": secret(tmp_path, "secret\n")}
    await service(scripted_model(lambda text: "yes"), settings(broker.port, mqtt=right))
    someone = await person(broker.port, username="ada", password="secret")
    answer, _ = await someone.ask("hi")
    assert answer["text"] == "yes"


async def test_a_secret_that_others_may_read_is_refused(settings, service, tmp_path, scripted_model):
    path = secret(tmp_path, "secret")
    path.chmod(0o644)
    with pytest.raises(SecretFileError, match="chmod 600"):
        await service(scripted_model(str), settings(1, mqtt={"username": "ada", "password_file": path}))


@pytest.fixture
def certificates(tmp_path_factory):
    """Return a folder with a CA, and a certificate and key for the broker and for a client, by openssl."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed: sudo apt install openssl")
    folder = tmp_path_factory.mktemp("certificates")

    def openssl(*words):
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    extensions = folder / "san.cnf"
    extensions.write_text("subjectAltName=IP:127.0.0.1\nkeyUsage=digitalSignature\n")
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    usage = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test CA", *usage)
    for name in ("broker", "client"):
        openssl("req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        sign = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "san.cnf")
        openssl("x509", "-req", "-in", f"{name}.csr", *sign, "-out", f"{name}.pem")
    return folder


async def test_tls_with_a_client_certificate(mosquitto, settings, service, person, certificates, scripted_model):
    broker = mosquitto(
        f"allow_anonymous true\ncafile {certificates}/ca.pem\ncertfile {certificates}/broker.pem\n"
        f"keyfile {certificates}/broker.key\nrequire_certificate true\n"
    )
    ours = {
        "ca_file": certificates / "ca.pem",
        "cert_file": certificates / "client.pem",
        "key_file": certificates / "client.key",
    }
    await service(scripted_model(lambda text: "in secret"), settings(broker.port, mqtt=ours))
    context = ssl.create_default_context(cafile=certificates / "ca.pem")
    context.load_cert_chain(certificates / "client.pem", certificates / "client.key")
    someone = await person(broker.port, tls_context=context)
    answer, _ = await someone.ask("hi")
    assert answer["text"] == "in secret"


@pytest.mark.parametrize("key", ["ca_file", "cert_file"])
async def test_a_certificate_that_cannot_be_read_is_named(settings, service, certificates, scripted_model, key):
    files = {"ca_file": certificates / "ca.pem"} | {key: certificates / "san.cnf"}
    with pytest.raises(InvalidValueError, match=rf"mqtt\.{key}"):
        await service(scripted_model(str), settings(1, mqtt=files))


async def test_a_message_that_costs_every_connection_is_given_up_and_no_other_with_it(monkeypatch, caplog):
    monkeypatch.setattr(link_module, "_ACK_SECONDS", 0.2)
    taken = []

    def broker(kind, body):
        if kind == CONNECT:
            return bytes([0x20, 3, 0, 0, 0])
        if kind != PUBLISH:
            return b""
        if b"denied" in body:
            return None
        end = 2 + body[1]
        taken.append(body[2:end])
        return bytes([0x40, 2, *body[end : end + 2]])

    async def hold(link):
        while True:
            with contextlib.suppress(aiomqtt.MqttError):
                async with link.connected() as client:
                    async for _ in client.messages:
                        pass

    async with pretending(broker) as address, asyncio.timeout(20), asyncio.TaskGroup() as group:
        link = Link(MqttSettings(broker=address.host), address, Topics("home", "home"))
        holder = group.create_task(hold(link))
        await asyncio.gather(*(link.deliver(topic, b"x") for topic in ("denied/me", "replies/1", "replies/2")))
        holder.cancel()
    assert sorted(taken) == [b"replies/1", b"replies/2"]
    assert "publishing on denied/me is given up: it has cost 3 connections" in caplog.text


async def test_it_is_offline_though_it_is_stopped_before_the_broker_has_noted_that_it_is_online(
    settings, service, scripted_model
):
    said = []
    online = asyncio.Event()

    def slow_broker(kind, body):
        if kind == CONNECT:
            return bytes([0x20, 3, 0, 0, 0])
        if kind == SUBSCRIBE:
            return bytes([0x90, 4, *body[:2], 0, 1])
        if kind == RETAINED:
            end = 2 + body[1]
            said.append(body[end + 3 :])
            online.set()
            return bytes([0x40, 2, *body[end : end + 2]]) if said[-1] == b"offline" else b""
        return b""

    async with pretending(slow_broker) as address, asyncio.timeout(20):
        running = await service(scripted_model(lambda text: "yes"), settings(address.port), wait=False)
        await online.wait()
        running.task.cancel()
        await asyncio.wait([running.task])
    assert said == [b"online", b"offline"]
