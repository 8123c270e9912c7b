package keys

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"golang.org/x/crypto/ssh"
)

// The messages of the agent's protocol that mean something here.
const (
	agentFailure   = 5
	agentList      = 11
	agentListed    = 12
	agentSign      = 13
	agentSigned    = 14
	agentMaxLength = 256 << 10

	agentFlagSHA256 = 2
	agentFlagSHA512 = 4
)

// Lent keys can be listed and signed with, nothing else. They are served here,
// because the library's server writes a log of its own.
type Lent []Key

// Serve answers questions until the asker has no more.
func (a Lent) Serve(rw io.ReadWriter) error {
	for {
		var length uint32
		if err := binary.Read(rw, binary.BigEndian, &length); err != nil {
			return err
		}
		if length == 0 || length > agentMaxLength {
			return fmt.Errorf("a question of %d bytes", length)
		}
		question := make([]byte, length)
		if _, err := io.ReadFull(rw, question); err != nil {
			return err
		}
		answer, err := a.answer(question)
		if err != nil {
			answer = []byte{agentFailure}
		}
		if _, err := rw.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(answer))), answer...)); err != nil {
			return err
		}
	}
}

func (a Lent) answer(question []byte) ([]byte, error) {
	switch question[0] {
	case agentList:
		answer := binary.BigEndian.AppendUint32([]byte{agentListed}, uint32(len(a)))
		for _, k := range a {
			answer = append(answer, ssh.Marshal(struct {
				Blob    []byte
				Comment string
			}{k.Signer.PublicKey().Marshal(), k.Name})...)
		}
		return answer, nil
	case agentSign:
		var q struct {
			Blob  []byte
			Data  []byte
			Flags uint32
		}
		if err := ssh.Unmarshal(question[1:], &q); err != nil {
			return nil, err
		}
		signature, err := a.sign(q.Blob, q.Data, q.Flags)
		if err != nil {
			return nil, err
		}
		return append([]byte{agentSigned}, ssh.Marshal(struct{ Blob []byte }{ssh.Marshal(signature)})...), nil
	default:
		return nil, errors.New("this agent only lists and signs")
	}
}

// sign signs with the algorithm that the flags ask for, which only RSA has
// several of.
func (a Lent) sign(blob, data []byte, flags uint32) (*ssh.Signature, error) {
	algorithm := ""
	switch {
	case flags&agentFlagSHA512 != 0:
		algorithm = ssh.KeyAlgoRSASHA512
	case flags&agentFlagSHA256 != 0:
		algorithm = ssh.KeyAlgoRSASHA256
	}
	for _, k := range a {
		if !bytes.Equal(k.Signer.PublicKey().Marshal(), blob) {
			continue
		}
		if s, ok := k.Signer.(ssh.AlgorithmSigner); ok && algorithm != "" {
			return s.SignWithAlgorithm(rand.Reader, data, algorithm)
		}
		return k.Signer.Sign(rand.Reader, data)
	}
	return nil, errors.New("no such key")
}
